use larder_macros::memoize;

#[memoize(cache = CACHE, key_self = "self.tenant")]
async fn load(id: u64) -> u64 {
    id
}

fn main() {}
