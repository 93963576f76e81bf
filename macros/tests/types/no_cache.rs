//~ the method `larder_cache` exists for type `u32`
//~ `u32: Cache`

use larder::memoize;

static CACHE: u32 = 1;

#[memoize(cache = CACHE)]
async fn load(id: u64) -> u64 {
    id
}

fn main() {}
