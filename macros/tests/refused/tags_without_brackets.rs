use larder_macros::memoize;

#[memoize(cache = CACHE, tags = "users")]
async fn load(id: u64) -> u64 {
    id
}

fn main() {}
