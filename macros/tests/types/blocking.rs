//~ a function that is not async cannot be memoized in `dyn Backend`
//~ make the function async, or use a cache of this process, such as `Moka`

use larder::{SharedCache, memoize};

#[memoize]
fn load(cache: &SharedCache, id: u64) -> u64 {
    let _ = cache;
    id
}

fn main() {}
