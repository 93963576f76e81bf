use larder_macros::memoize;

#[memoize(cache = CACHE, name = "HASH_RING_users")]
async fn load(id: u64) -> u64 {
    id
}

fn main() {}
