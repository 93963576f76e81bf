use larder_macros::memoize;

struct Users;

impl Users {
    #[memoize(cache = self.cache)]
    async fn load(self, id: u64) -> u64 {
        id
    }
}

fn main() {}
