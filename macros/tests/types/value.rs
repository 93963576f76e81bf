//~ `User` cannot be cached
//~ derive serde's traits and `Clone`

use std::sync::LazyLock;

use larder::{Moka, memoize};

static CACHE: LazyLock<Moka> = LazyLock::new(|| Moka::new(10));

struct User;

#[memoize(cache = CACHE)]
async fn load(id: u64) -> User {
    let _ = id;
    User
}

fn main() {}
