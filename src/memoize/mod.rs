//! Functions whose answers are cached: what [`#[larder::memoize]`](macro@crate::memoize) makes of a function.
//!
//! ```
//! use std::sync::LazyLock;
//! use larder::{Moka, memoize};
//!
//! static CACHE: LazyLock<Moka> = LazyLock::new(|| Moka::new(10_000));
//!
//! #[memoize(cache = CACHE, ttl = 5)]
//! async fn total(order: u64, with_tax: bool) -> u64 {
//!     order * if with_tax { 119 } else { 100 } // or something slow
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! assert_eq!(total(7, true).await, 833);
//! assert_eq!(total(7, true).await, 833); // from memory
//! assert!(total::key(7, true)?.ends_with("total(7,true)"));
//! assert!(total::delete(7, true).await?);
//! # Ok::<_, larder::Error>(())
//! # }).unwrap();
//! ```
//!
//! # The function
//!
//! It is async, or its cache is [`InProcess`]. Its arguments are `Serialize`, may be references, and of any type that is generic or not. What it
//! returns can be cached, or is a `Result` of such, an `Option`, or an `Arc`, which is shared with memory rather than cloned.
//!
//! * An `Err` is not cached, and neither is a `None`, unless `cache_errors` or `cache_none` says so.
//! * Callers of the same arguments at the same time share one run. Where two others failed at it, one that waited is told: the error
//!   of a fallible function is `From<larder::Error>`, or `map_err` makes one. A function without errors runs for such a caller by itself.
//! * It runs in its caller, so it may borrow. With `task` it runs in a task of its own, as
//!   [`get_or_set_with`](crate::Cache::get_or_set_with) has it: then it goes on when its caller goes away, and is
//!   [refreshed ahead](crate::Options::refresh_ahead) of its end.
//!
//! # Its companions
//!
//! | of a function `f` | of a method, or with `associated` | |
//! |---|---|---|
//! | `f::uncached(..)` | `self.f_uncached(..)` | runs, caches nothing |
//! | `f::refresh(..)` | `self.f_refresh(..)` | runs, caches what comes of it |
//! | `f::key(..)` | `self.f_key(..)` | the key of a call |
//! | `f::delete(..)` | `self.f_delete(..)` | removes what a call cached |
//! | | `self.f_delete_instance()` | all that was cached for this instance, with `key_self` |
//! | `f::delete_all()` | `self.f_delete_all()` | all that was cached, by one write to each node |
//!
//! `key` and `delete` have the arguments that the key is made of, `delete_all` those that lead to the cache. Those of a function hang on
//! a type of its name, which a module of that name beside it would clash with.
//!
//! # The attribute
//!
//! | | |
//! |---|---|
//! | `cache = EXPR` | where: a static, a field (`self.cache`), any expression. Without it, an argument that is a cache, which is no part of the key |
//! | `ttl = 5` | seconds; `"90s"`, `"1h30m"`, `"forever"`, `-1` for ever, or an expression. Without it, the cache's default |
//! | `options = EXPR` | all else that [`Options`](crate::Options) say: grace, timeouts, lease, refresh ahead |
//! | `tags = ["users", "user:{id}"]` | for [`invalidate_tag`](crate::Cache::invalidate_tag); format strings and expressions over the arguments, 30 at most |
//! | `skip(db, trace)` | arguments that are no part of the key |
//! | `key = "{user}/{page}"` | in place of the arguments: a format string, an expression, or a closure that is given them by reference |
//! | `key_self = "self.tenant"` | what tells instances apart. Without it, a method is one function for all of them |
//! | `name = "users"` | in place of the function's path: that programs agree on, or that outlives a move |
//! | `source_check` | the function's own text is a part of the key: a change of it leaves what was cached behind |
//! | `unless = EXPR` | a call for which this is true passes the cache by |
//! | `force_if = EXPR` | one for which this is true computes, and stores what comes of it |
//! | `stale_if = \|value\| ..` | a cached value for which this is true is computed anew |
//! | `store_if = \|value\| ..` | a value for which this is false is not stored |
//! | `cache_none`, `cache_errors` | these are cached like values |
//! | `map_err = \|error\| ..` | from an error of the cache to one of the function |
//! | `task` | runs in a task of its own; the function is async, returns a `Result`, and borrows nothing |
//! | `associated` | it is a function of a type that mentions no `Self`: the companions stand beside it |
//! | `crate = PATH` | where this crate is, if it is not `::larder` |
//!
//! Expressions see the arguments as the first line of the function would.
//!
//! # The key
//!
//! `prefix NAME (arguments)`: the cache's [`key_prefix`](crate::core::Settings::key_prefix), the path of the function as the compiler has it,
//! and the arguments. Integers and booleans stand there as they are, `shop::users::load(42)`; all else as 128 bits of SHA-256,
//! `shop::users::by_name(#9f86d081884c7d659a2feaa0c55ad015)`. Where types or the function's own text are a part of it, a hash of them
//! stands before the arguments: `shop::Repo::load<0f3a5b1c9d7e2468>(42)`. What tells instances apart stands in brackets there.
//!
//! Equal arguments have one key in every process and build: maps, sets and fields of structs are put in order, and integers are the same
//! whatever their width. So are the keys of a program and those of its next version, as long as function and arguments keep their
//! names. Two functions of one path or `name` (of one name in two blocks of a function, say) are told of by the event `memoized_twice`, and in each process the
//! second that is called is not cached: give them a `name` each. No others have a key in common.
//!
//! A set within another type is put in order where that is plain to see: in a field, an `Option`, a list, a `Box` or a `Cow`, and not behind a `#[serde(transparent)]` or a lock. Where it is not, or
//! where `#[serde(skip)]` leaves out what tells arguments apart, give the `key`.
//!
//! # Refused
//!
//! At compile time: what cannot be cached or told apart, with what to do instead. At run time a call that has no key, because an argument
//! does not encode or the key is longer than 1,024 bytes, runs uncached, and that is counted and logged; its `key` and `delete` are
//! errors of kind `Key`. `delete_all` is `Unsupported` in a store that keeps no tags.
//!
//! # Cancellation
//!
//! As of [`try_get_or_set`](crate::Cache::try_get_or_set): a call that is dropped passes its compute on to one that waits.

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
        Anew, AnyType, Call, Due, Fallible, Handle, KeyPart, MemoizedError, Probe, Run, answer,
        asked, block_on, delete, delete_all, delete_instance, due, judge, owned, part,
        without_errors,
    };
    pub use super::key::Key;
    pub use super::name::{Name, Site};
}
