use larder_macros::memoize;

#[memoize(cache = CACHE, task)]
async fn load(id: u64) -> u64 {
    id
}

fn main() {}
