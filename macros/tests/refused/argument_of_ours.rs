use larder_macros::memoize;

#[memoize(cache = CACHE)]
async fn load(id: u64, __key: u64) -> u64 {
    id + __key
}

fn main() {}
