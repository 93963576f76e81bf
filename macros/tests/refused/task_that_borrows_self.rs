use larder_macros::memoize;

struct Users;

impl Users {
    #[memoize(cache = self.cache, task)]
    async fn load(&self, id: u64) -> Result<u64, String> {
        Ok(id)
    }
}

fn main() {}
