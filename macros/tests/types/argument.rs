//~ an argument of type `&Query` cannot be a part of the key
//~ derive `serde::Serialize` for its type, leave it out of the key with `skip(...)`

use std::sync::LazyLock;

use larder::{Moka, memoize};

static CACHE: LazyLock<Moka> = LazyLock::new(|| Moka::new(10));

struct Query;

#[memoize(cache = CACHE)]
async fn load(query: &Query, id: u64) -> u64 {
    let _ = query;
    id
}

fn main() {}
