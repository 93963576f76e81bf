//! The call itself: a hit, or waiting, computing and storing.

use proc_macro2::TokenStream;
use quote::{ToTokens as _, quote, quote_spanned};
use syn::spanned::Spanned as _;
use syn::{Expr, GenericParam, Lit};

use super::{Emit, Kind};
use crate::attribute::Ttl;

impl Emit<'_> {
    pub(super) fn options(&self) -> TokenStream {
        let krate = self.krate();
        if let Some(options) = &self.attribute.options {
            return quote_spanned! { options.span() => #krate::Options::from(#options) };
        }
        let Some((ttl, _)) = &self.attribute.ttl else {
            return quote! { <#krate::Options as ::core::default::Default>::default() };
        };
        let ttl = match ttl {
            Ttl::Seconds(seconds) => quote! { #krate::Ttl::from_secs(#seconds) },
            Ttl::Millis(millis) => quote! { ::core::time::Duration::from_millis(#millis) },
            Ttl::Forever => quote! { #krate::Ttl::Forever },
            Ttl::Computed(expr) => expr.to_token_stream(),
        };
        quote! { #krate::Options::ttl(#ttl) }
    }

    /// Options that may say what a hit comes to are there before it; others are not made for it.
    fn options_first(&self) -> Option<TokenStream> {
        self.attribute.options.as_ref().map(|_| {
            let options = self.options();
            quote! { let __options = #options; }
        })
    }

    /// The call, once memory had nothing.
    pub(super) fn missed(&self) -> TokenStream {
        let room = self.room();
        let options = match self.attribute.options {
            Some(_) => quote! { __options },
            None => self.options(),
        };
        let caches_none = self.attribute.cache_none.is_some();
        quote! { #room::Call::new(__cache, __key, #options, #caches_none) }
    }

    /// What is cached.
    pub(super) fn value(&self) -> TokenStream {
        let (room, returned) = (self.room(), &self.function.returned);
        let (ty, span) = (&returned.ty, returned.ty.span());
        match (&returned.shared, returned.fallible) {
            (Some(shared), _) => shared.to_token_stream(),
            (None, true) => quote_spanned! { span => <#ty as #room::Fallible>::Value },
            (None, false) => ty.to_token_stream(),
        }
    }

    /// From a shared value to what the function returns.
    pub(super) fn unshared(&self) -> TokenStream {
        let room = self.room();
        match self.function.returned.shared {
            Some(_) => quote! { ::core::convert::identity },
            None => quote! { #room::owned },
        }
    }

    pub(super) fn call(&self, kind: Kind) -> TokenStream {
        let unless = match (&self.attribute.unless, kind) {
            (Some(unless), Kind::Cached) => {
                let (asked, uncached) = (self.asked(unless), self.run_uncached());
                quote_spanned! { unless.span() => if #asked { return #uncached; } }
            }
            _ => TokenStream::new(),
        };
        let force = match (&self.attribute.force_if, kind) {
            (_, Kind::Refresh) => quote! { true },
            (Some(force), Kind::Cached) => self.asked(force),
            (None, Kind::Cached) => quote! { false },
        };
        let (cache, key, options) = (self.cache(), self.key(), self.options_first());
        let probe = (kind == Kind::Cached).then(|| self.probe());
        let (hit, tags, computed) = (self.hit(kind), self.tags(), self.computed(kind));
        let (missed, unshared) = (self.missed(), self.unshared());
        let waited = self.waited(&quote! { __waiting });
        let answer = match self.function.returned.fallible {
            true => quote! { (#waited).map(#unshared) },
            false => quote! { #unshared(#waited) },
        };
        // What is not there any more when the call waits is no part of its future.
        quote! {
            #probe
            #unless
            #cache
            let __waiting = {
                #key
                #options
                let __force: bool = #force;
                #[allow(unused_mut)]
                let mut __stale = false;
                #hit
                let mut __call = #missed;
                __call.tags(#tags);
                #computed
            };
            #answer
        }
    }

    /// Has a `Result` refused that is not known for one.
    fn probe(&self) -> TokenStream {
        let (room, returned) = (self.room(), &self.function.returned);
        if returned.fallible || self.attribute.cache_errors.is_some() {
            return TokenStream::new();
        }
        let ty = &returned.ty;
        let form = quote_spanned! { ty.span() => #room::Probe::<#ty>::new().form() };
        let asked = quote_spanned! { ty.span() => #room::without_errors(#form); };
        quote! { { #[allow(unused_imports)] use #room::AnyType as _; #asked } }
    }

    /// A hit is all there is to the call, unless it is to be computed anew.
    pub(super) fn hit(&self, kind: Kind) -> TokenStream {
        if kind == Kind::Refresh {
            return TokenStream::new();
        }
        let (room, value, unshared) = (self.room(), self.value(), self.unshared());
        let answer = match self.function.returned.fallible {
            true => quote! { ::core::result::Result::Ok(#unshared(__found.value)) },
            false => quote! { #unshared(__found.value) },
        };
        let stale = self.attribute.stale_if.as_ref().map(|stale| {
            quote_spanned! { stale.span() => if #room::asked(&*__found.value, #stale) { __stale = true; } else }
        });
        let options = match self.attribute.options {
            Some(_) => quote! { __options },
            None => self.options(),
        };
        let due = self.attribute.task.map(|_| {
            let some = quote! { ::core::option::Option::Some(__found) };
            quote! { if #room::due(__cache, &#options, &__found) { __due = #some; } else }
        });
        let looked = match self.attribute.options {
            Some(_) => quote! { __key.hit_with::<#value, _>(__cache, &__options) },
            None => quote! { __key.hit::<#value, _>(__cache) },
        };
        let declared = due
            .as_ref()
            .map(|_| quote! { let mut __due = ::core::option::Option::None; });
        quote! {
            #declared
            if !__force {
                if let ::core::option::Option::Some(__found) = #looked {
                    #stale #due { return #answer; }
                }
            }
        }
    }

    pub(super) fn tags(&self) -> TokenStream {
        let room = self.room();
        let tags = self.attribute.tags.iter().map(|tag| match tag {
            Expr::Lit(literal) if matches!(literal.lit, Lit::Str(_)) => {
                quote_spanned! { tag.span() => #room::std::format!(#literal) }
            }
            tag => quote_spanned! { tag.span() => #room::std::string::String::from(#tag) },
        });
        quote! { [#(#tags),*] as [#room::std::string::String; _] }
    }

    /// The rest of the call: waiting, computing, storing.
    pub(super) fn computed(&self, kind: Kind) -> TokenStream {
        let (room, value, unshared) = (self.room(), self.value(), self.unshared());
        let store_if = self.attribute.store_if.as_ref().map_or_else(
            || quote! { |_: &#value| true },
            |store| quote_spanned! { store.span() => #room::judge::<#value, _>(#store) },
        );
        let stale_if = match (&self.attribute.stale_if, kind) {
            (Some(stale), Kind::Cached) => {
                let stale = quote_spanned! { stale.span() => #room::judge::<#value, _>(#stale) };
                quote! { ::core::option::Option::Some(#stale) }
            }
            _ => quote! { ::core::option::Option::None::<fn(&#value) -> bool> },
        };
        let anew =
            quote! { #room::Anew { force: __force, found_stale: __stale, stale_if: #stale_if } };
        let run = quote! { #room::Run { anew: #anew, store_if: #store_if } };
        let compute = self.compute();
        if !self.function.returned.fallible {
            return quote! { __call.infallible(#run, #compute) };
        }
        let map_err = self.map_err();
        if self.attribute.task.is_none() {
            return quote! { __call.fallible(#run, #map_err, #compute) };
        }
        let ahead = (kind == Kind::Cached).then(|| {
            quote! {
                if let ::core::option::Option::Some(__found) = __due {
                    return ::core::result::Result::Ok(#unshared(__call.ahead(__found, #store_if, #compute)));
                }
            }
        });
        quote! { #ahead __call.in_task(#run, #map_err, #compute) }
    }

    pub(super) fn map_err(&self) -> TokenStream {
        if let Some(map_err) = &self.attribute.map_err {
            return map_err.to_token_stream();
        }
        let (room, ty) = (self.room(), &self.function.returned.ty);
        quote_spanned! { ty.span() => <<#ty as #room::Fallible>::Error as #room::MemoizedError>::from_larder }
    }

    pub(super) fn run_uncached(&self) -> TokenStream {
        let uncached = self.path(&self.companion("uncached"));
        let function = &self.function;
        let receiver = function
            .item
            .sig
            .receiver()
            .map(|receiver| receiver.self_token);
        let arguments = function.arguments.iter().map(|argument| &argument.ident);
        let given = receiver.into_iter().map(|token| token.to_token_stream());
        let given = given.chain(arguments.map(|ident| ident.to_token_stream()));
        let types = function
            .item
            .sig
            .generics
            .params
            .iter()
            .filter_map(|param| match param {
                GenericParam::Type(param) => Some(&param.ident),
                GenericParam::Const(param) => Some(&param.ident),
                GenericParam::Lifetime(_) => None,
            });
        let types: Vec<_> = types.collect();
        let turbofish = (!types.is_empty()).then(|| quote! { ::<#(#types),*> });
        let wait = function.is_async().then(|| quote! { .await });
        quote! { #uncached #turbofish (#(#given),*) #wait }
    }

    /// The compute: the function's own body, whose value is not shared yet.
    pub(super) fn compute(&self) -> TokenStream {
        let (room, run) = (self.room(), self.run_uncached());
        let run = match (
            &self.function.returned.shared,
            self.function.returned.fallible,
        ) {
            (Some(_), true) => quote! { (#run).map(#room::owned) },
            (Some(_), false) => quote! { #room::owned(#run) },
            (None, _) => run,
        };
        quote! { move || async move { #run } }
    }
}
