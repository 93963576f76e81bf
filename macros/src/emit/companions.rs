//! What stands beside the function.

use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens as _, format_ident, quote, quote_spanned};
use syn::spanned::Spanned as _;

use super::{Emit, Kind, Takes};

impl Emit<'_> {
    pub(super) fn companions(&self) -> TokenStream {
        let parts = [
            self.site(),
            self.uncached(),
            self.key_of(),
            self.delete(),
            self.delete_instance(),
            self.delete_all(),
            self.refresh(),
        ];
        quote! { #(#parts)* }
    }

    /// The one place that stands for the function.
    pub(super) fn site(&self) -> TokenStream {
        let (room, ident) = (self.room(), self.site_ident());
        quote! {
            #[doc(hidden)]
            fn #ident() -> &'static #room::Site {
                static SITE: #room::Site = #room::Site::new();
                &SITE
            }
        }
    }

    pub(super) fn site_ident(&self) -> Ident {
        let ident = &self.function.item.sig.ident;
        format_ident!("__larder_site_{ident}")
    }

    pub(super) fn uncached(&self) -> TokenStream {
        let block = &self.function.item.block;
        let answer = self.function.returned.ty.to_token_stream();
        let statements = &block.stmts;
        let item = &self.function.item;
        let ident = self.companion("uncached");
        let doc = format!(
            "Runs, whatever is cached, and caches nothing. Of `{}`.",
            item.sig.ident
        );
        let attrs = self.carried(&["cfg", "allow", "expect"]);
        let (vis, asyncness, inputs) = (&item.vis, item.sig.asyncness, &item.sig.inputs);
        let (params, bounds) = (&item.sig.generics.params, &item.sig.generics.where_clause);
        let angles = (!params.is_empty()).then(|| quote! { <#params> });
        quote! {
            #(#attrs)*
            #[doc = #doc]
            #[allow(dead_code, clippy::missing_errors_doc, clippy::missing_panics_doc, clippy::must_use_candidate)]
            #vis #asyncness fn #ident #angles (#inputs) -> #answer #bounds { #(#statements)* }
        }
    }

    pub(super) fn key_of(&self) -> TokenStream {
        let (krate, room, begun) = (self.krate(), self.room(), self.begun());
        let answer = quote! { #krate::Result<#room::std::string::String> };
        let doc = "The key of such a call, as its cache takes it.\n\n# Errors\n\nOf kind `Key`, where an argument cannot be encoded.";
        self.write(
            "key",
            doc,
            Takes::Keyed { waits: false },
            &answer,
            &quote! { #begun __key.into_string() },
        )
    }

    pub(super) fn delete(&self) -> TokenStream {
        let (krate, room, begun) = (self.krate(), self.room(), self.begun());
        let answer = quote! { #krate::Result<bool> };
        let doc = "Removes the value of such a call, and tells whether there was one.\n\n# Errors\n\nAs `Cache::delete`.";
        let body = self.waited(&quote! { #room::delete(__cache, __key) });
        self.write(
            "delete",
            doc,
            Takes::Keyed { waits: true },
            &answer,
            &quote! { #begun #body },
        )
    }

    pub(super) fn delete_all(&self) -> TokenStream {
        let (krate, room, cache, name) = (self.krate(), self.room(), self.cache(), self.name());
        let answer = quote! { #krate::Result<()> };
        let doc = "Makes all values nothing that are cached, of whatever arguments: one small write for each node.\n\n# Errors\n\nAs \
                   `Cache::invalidate_tag`.";
        let body = self.waited(&quote! { #room::delete_all(__cache, #name) });
        self.write(
            "delete_all",
            doc,
            Takes::Cache,
            &answer,
            &quote! { #cache #body },
        )
    }

    pub(super) fn delete_instance(&self) -> TokenStream {
        let Some(instance) = &self.attribute.key_self else {
            return TokenStream::new();
        };
        let (krate, room, cache, name) = (self.krate(), self.room(), self.cache(), self.name());
        let answer = quote! { #krate::Result<()> };
        let doc = "Makes all values nothing that are cached for this instance.\n\n# Errors\n\nAs `Cache::invalidate_tag`.";
        let body = self.waited(&quote! { #room::delete_instance(__cache, #name, &(#instance)) });
        self.write(
            "delete_instance",
            doc,
            Takes::Cache,
            &answer,
            &quote! { #cache #body },
        )
    }

    pub(super) fn refresh(&self) -> TokenStream {
        let answer = self.function.returned.ty.to_token_stream();
        let doc = "Runs, whatever is cached, and caches what comes of it. See `Cache::refresh`.";
        self.write(
            "refresh",
            doc,
            Takes::All,
            &answer,
            &self.call(Kind::Refresh),
        )
    }

    fn begun(&self) -> TokenStream {
        let (cache, key) = (self.cache(), self.key());
        quote! { #cache #key }
    }

    /// Waits for a future, as the function does.
    pub(super) fn waited(&self, future: &TokenStream) -> TokenStream {
        let room = self.room();
        if self.function.is_async() {
            return quote! { (#future).await };
        }
        let span = self.function.cache.span();
        quote_spanned! { span => #room::block_on(__cache, #future) }
    }
}
