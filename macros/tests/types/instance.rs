//~ an argument of type `Tenant` cannot be a part of the key
//~ this argument is not `Serialize`

use std::sync::LazyLock;

use larder::{Moka, memoize};

static CACHE: LazyLock<Moka> = LazyLock::new(|| Moka::new(10));

struct Tenant;

struct Users {
    tenant: Tenant,
}

impl Users {
    #[memoize(cache = CACHE, key_self = "self.tenant")]
    async fn load(&self, id: u64) -> u64 {
        id
    }
}

fn main() {}
