use larder_macros::memoize;

#[memoize(cache = CACHE, ttl = "5 parsecs")]
async fn load(id: u64) -> u64 {
    id
}

fn main() {}
