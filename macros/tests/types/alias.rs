//~ the errors of this function would be cached like values: its `Result` goes by another name
//~ return `Result<T, E>` by that name, so that its errors are not cached, or say `cache_errors`

use std::sync::LazyLock;

use larder::{Moka, memoize};

static CACHE: LazyLock<Moka> = LazyLock::new(|| Moka::new(10));

type Answer = Result<u64, String>;

#[memoize(cache = CACHE)]
async fn load(id: u64) -> Answer {
    Ok(id)
}

fn main() {}
