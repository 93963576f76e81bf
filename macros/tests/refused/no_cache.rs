use larder_macros::memoize;

#[memoize(ttl = 5)]
async fn load(id: u64) -> u64 {
    id
}

fn main() {}
