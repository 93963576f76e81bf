use larder_macros::memoize;

#[memoize(cache = CACHE, ttl = 1.5)]
async fn load(id: u64) -> u64 {
    id
}

fn main() {}
