//! The function that looks into the cache first, and its companions.

mod call;
mod companions;
mod key;

use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens, format_ident, quote};
use syn::{FnArg, GenericParam, Generics, Pat, Path, parse_quote};

use crate::attribute::Attribute;
use crate::function::{Function, Role, mentions};

/// What is written, and with what.
pub(crate) struct Emit<'a> {
    pub(crate) function: &'a Function,
    pub(crate) attribute: &'a Attribute,
}

/// Which call it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Cached,
    Refresh,
}

/// Which arguments a companion has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    All,
    /// Those that the key is made of.
    Keyed {
        waits: bool,
    },
    /// What leads to the cache.
    Cache,
}

impl Emit<'_> {
    /// The function and its companions.
    pub(crate) fn all(&self) -> TokenStream {
        let item = &self.function.item;
        let (vis, cfgs) = (&item.vis, self.carried(&["cfg"]));
        // What is expected of the body is expected where that is.
        let attrs = item
            .attrs
            .iter()
            .filter(|attr| !attr.path().is_ident("expect"));
        let mut sig = item.sig.clone();
        for input in &mut sig.inputs {
            if let FnArg::Typed(typed) = input
                && let Pat::Ident(pat) = &mut *typed.pat
            {
                pat.mutability = None;
            }
        }
        let body = self.call(Kind::Cached);
        let companions = self.companions();
        let main = quote! {
            #(#attrs)*
            #[allow(clippy::used_underscore_binding)]
            #vis #sig { #body }
        };
        if self.function.is_method {
            return quote! { #main #companions };
        }
        let ident = &item.sig.ident;
        let doc = format!(
            "What stands beside the memoized function `{ident}`: its calls uncached, their keys, and how they are removed."
        );
        quote! {
            #main

            #(#cfgs)*
            #[doc = #doc]
            #[allow(non_camel_case_types)]
            #[derive(Clone, Copy, Debug)]
            #vis enum #ident {}

            #(#cfgs)*
            impl #ident { #companions }
        }
    }

    /// Attributes of the function that its companions have too.
    fn carried(&self, names: &[&str]) -> Vec<&syn::Attribute> {
        let carries = |attr: &&syn::Attribute| names.iter().any(|name| attr.path().is_ident(name));
        self.function.item.attrs.iter().filter(carries).collect()
    }

    /// The crate's hidden room.
    fn room(&self) -> TokenStream {
        let krate = self.krate();
        quote! { #krate::memoize::__private }
    }

    fn krate(&self) -> Path {
        self.attribute
            .krate
            .clone()
            .unwrap_or_else(|| parse_quote!(::larder))
    }

    fn companion(&self, name: &str) -> Ident {
        let ident = &self.function.item.sig.ident;
        if self.function.is_method {
            format_ident!("{ident}_{name}", span = ident.span())
        } else {
            Ident::new(name, ident.span())
        }
    }

    /// By what a companion is called.
    fn path(&self, name: &Ident) -> TokenStream {
        let ident = &self.function.item.sig.ident;
        if self.function.is_method {
            quote! { Self::#name }
        } else {
            quote! { #ident::#name }
        }
    }

    /// A companion: its name, its documentation, which arguments it has, what it answers and does.
    fn write(
        &self,
        name: &str,
        doc: &str,
        takes: Takes,
        answer: &TokenStream,
        body: &TokenStream,
    ) -> TokenStream {
        let (item, ident) = (&self.function.item, self.companion(name));
        let doc = format!("{doc} Of `{}`.", item.sig.ident);
        let attrs = self.carried(&["cfg", "allow"]);
        let inputs = self.inputs(takes);
        let generics = self.generics(takes, &inputs);
        let (params, bounds) = (&generics.params, &generics.where_clause);
        let angles = (!params.is_empty()).then(|| quote! { <#params> });
        let (vis, asyncness) = (&item.vis, self.function.item.sig.asyncness);
        // The key is made at once.
        let asyncness = asyncness.filter(|_| takes != Takes::Keyed { waits: false });
        quote! {
            #(#attrs)*
            #[doc = #doc]
            #[allow(dead_code, unused_variables, clippy::all, clippy::pedantic, clippy::nursery)]
            #vis #asyncness fn #ident #angles (#(#inputs),*) -> #answer #bounds { #body }
        }
    }

    fn inputs(&self, takes: Takes) -> Vec<FnArg> {
        let kept = |input: &&FnArg| match input {
            FnArg::Receiver(_) => true,
            FnArg::Typed(typed) => {
                let Pat::Ident(pat) = &*typed.pat else {
                    return true;
                };
                let argument = self
                    .function
                    .arguments
                    .iter()
                    .find(|argument| argument.ident == pat.ident);
                let in_cache = mentions(&self.function.cache.to_token_stream(), &pat.ident);
                let in_key = argument.is_some_and(|argument| argument.role == Role::Part)
                    || self.attribute.key.as_ref().is_some_and(|key| {
                        // A closure is given them by place.
                        let by_place = matches!(key, syn::Expr::Closure(_))
                            && argument.is_some_and(|argument| argument.role == Role::Material);
                        by_place || mentions(&key.to_token_stream(), &pat.ident)
                    });
                match takes {
                    Takes::All => true,
                    Takes::Keyed { .. } => in_key || in_cache,
                    Takes::Cache => in_cache,
                }
            }
        };
        let inputs = self.function.item.sig.inputs.iter().filter(kept).cloned();
        inputs
            .map(|mut input| {
                if let FnArg::Typed(typed) = &mut input
                    && let Pat::Ident(pat) = &mut *typed.pat
                {
                    pat.mutability = None;
                }
                input
            })
            .collect()
    }

    /// Those of the function, or, where a companion has not all of its arguments, those that it needs.
    fn generics(&self, takes: Takes, inputs: &[FnArg]) -> Generics {
        let mut generics = self.function.item.sig.generics.clone();
        if takes == Takes::All {
            return generics;
        }
        let mut needed = quote! { #(#inputs),* };
        needed.extend(self.function.cache.to_token_stream());
        if takes != Takes::Cache {
            let keyed = self.function.keyed_generics().map(named);
            needed.extend(keyed.flat_map(ToTokens::into_token_stream));
            needed.extend(self.attribute.key.to_token_stream());
        }
        let keeps = |param: &GenericParam| mentions(&needed, named(param));
        let dropped: Vec<Ident> = generics
            .params
            .iter()
            .filter(|param| !keeps(param))
            .map(|param| named(param).clone())
            .collect();
        generics.params = generics
            .params
            .into_iter()
            .filter(|param| keeps(param))
            .collect();
        if let Some(bounds) = &mut generics.where_clause {
            let free = |bound: &syn::WherePredicate| {
                let tokens = bound.to_token_stream();
                !dropped.iter().any(|ident| mentions(&tokens, ident))
            };
            bounds.predicates = std::mem::take(&mut bounds.predicates)
                .into_iter()
                .filter(free)
                .collect();
        }
        generics
    }
}

fn named(param: &GenericParam) -> &Ident {
    match param {
        GenericParam::Type(param) => &param.ident,
        GenericParam::Const(param) => &param.ident,
        GenericParam::Lifetime(param) => &param.lifetime.ident,
    }
}
