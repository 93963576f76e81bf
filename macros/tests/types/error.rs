//~ a memoized function cannot fail with `std::io::Error` alone
//~ implement `From<larder::Error>` for the error, or give `map_err = |error| ...`

use std::sync::LazyLock;

use larder::{Moka, memoize};

static CACHE: LazyLock<Moka> = LazyLock::new(|| Moka::new(10));

#[memoize(cache = CACHE)]
async fn load(id: u64) -> Result<u64, std::io::Error> {
    Ok(id)
}

fn main() {}
