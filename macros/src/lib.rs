//! The macro of `larder`: functions whose answers are cached. Use it as `larder::memoize`, which has its documentation.

mod attribute;
mod emit;
mod function;
mod source;
mod span_of_time;

use proc_macro::TokenStream;

use crate::attribute::Attribute;
use crate::emit::Emit;
use crate::function::Function;

/// Caches what a function answers, by its arguments: `#[memoize(cache = CACHE, ttl = 5)]`.
///
/// The module of the same name, `larder::memoize`, has all that can be said here, the companions of such a function, and what its keys are.
#[proc_macro_attribute]
pub fn memoize(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let original = proc_macro2::TokenStream::from(item.clone());
    let written = || -> syn::Result<proc_macro2::TokenStream> {
        let attribute: Attribute = syn::parse(attribute)?;
        let item = syn::parse(item).map_err(|error: syn::Error| {
            let why = "a function with a body is memoized, and nothing else";
            syn::Error::new(error.span(), why)
        })?;
        let function = Function::new(item, &attribute)?;
        let emit = Emit {
            function: &function,
            attribute: &attribute,
        };
        Ok(emit.all())
    };
    let refused = |error: syn::Error| {
        // So that its callers are not told that there is no such function.
        let error = error.to_compile_error();
        quote::quote! { #error #original }
    };
    written().unwrap_or_else(refused).into()
}
