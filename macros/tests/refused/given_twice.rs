use larder_macros::memoize;

#[memoize(cache = CACHE, ttl = 5, ttl = 6)]
async fn load(id: u64) -> u64 {
    id
}

fn main() {}
