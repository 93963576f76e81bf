//! Functions whose answers are cached: what [`#[larder::memoize]`](crate::memoize) stands on.
//!
//! The key of a call is `prefix NAME (arguments)`: the cache's [`key_prefix`](crate::core::Settings::key_prefix), the path of the function,
//! and its arguments. Integers and booleans stand there as they are, `shop::users::load(42)`; all else as 128 bits of a hash,
//! `shop::users::by_name(#9f86d081884c7d659a2feaa0c55ad015)`. Where types or the function's own text are a part of it, a hash of them
//! stands before the arguments: `shop::Repo::load<0f3a5b1c9d7e2468>(42)`.

mod blocking;
mod call;
mod canon;
mod key;
mod name;
mod plain;
mod text;

pub use blocking::InProcess;

/// What the code of the macro calls. Not for others, and it changes without notice.
#[doc(hidden)]
pub mod __private {
    pub use std;

    pub use super::call::{
        Call, Due, Fallible, Handle, KeyPart, MemoizedError, Run, asked, block_on, delete,
        delete_all, delete_instance, due, owned, part,
    };
    pub use super::key::Key;
    pub use super::name::{Name, Site};
}
