//! Where a value is: its cache and its key.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens as _, quote, quote_spanned};
use syn::spanned::Spanned as _;
use syn::{Expr, GenericParam, Lit, Type};

use super::Emit;
use crate::function::{Argument, Role, mentions};

impl Emit<'_> {
    pub(super) fn name(&self) -> TokenStream {
        let (room, ident) = (self.room(), &self.function.item.sig.ident);
        if let Some(name) = &self.attribute.name {
            return quote! { #room::Name::Given(#name) };
        }
        if self.function.is_method {
            let name = ident.to_string();
            return quote! { #room::Name::Method(::core::any::type_name::<Self>(), #name) };
        }
        quote! { #room::Name::Of(::core::any::type_name::<#ident>()) }
    }

    pub(super) fn cache(&self) -> TokenStream {
        let (room, cache) = (self.room(), &self.function.cache);
        let span = cache.span();
        let tokens = cache.to_token_stream();
        let is_moved = |argument: &Argument| {
            !matches!(argument.ty, Type::Reference(_)) && mentions(&tokens, &argument.ident)
        };
        let found = match cache {
            // The arguments are the compute's.
            _ if self.function.arguments.iter().any(is_moved) => {
                quote_spanned! { span => let __owner = ::core::clone::Clone::clone(&(#cache)); let __cache = __owner.larder_cache(); }
            }
            // What it returns must live as long as the call.
            Expr::Call(_) | Expr::MethodCall(_) | Expr::Macro(_) | Expr::Block(_) => {
                quote_spanned! { span => let __owner = #cache; let __cache = __owner.larder_cache(); }
            }
            _ => quote_spanned! { span => let __cache = (#cache).larder_cache(); },
        };
        quote! { use #room::Handle as _; #found }
    }

    /// The key of the call.
    pub(super) fn key(&self) -> TokenStream {
        let (room, name, site) = (self.room(), self.name(), self.path(&self.site_ident()));
        let generics = self.function.keyed_generics().map(|param| match param {
            GenericParam::Const(param) => {
                let ident = &param.ident;
                quote! { __key.constant(&#ident); }
            }
            GenericParam::Type(param) => {
                let ident = &param.ident;
                quote! { __key.type_named(::core::any::type_name::<#ident>()); }
            }
            GenericParam::Lifetime(_) => TokenStream::new(),
        });
        let source = self.attribute.source_check.map(|_| {
            let hash = self.source();
            quote! { __key.source(#hash); }
        });
        let instance = self.attribute.key_self.as_ref().map(|instance| {
            quote_spanned! { instance.span() => __key.instance(&(#instance)); }
        });
        let arguments = self.key_arguments();
        quote! {
            let mut __key = #room::Key::new(#site(), #name, __cache);
            #(#generics)* #source #instance #arguments
        }
    }

    pub(super) fn key_arguments(&self) -> TokenStream {
        let room = self.room();
        if let Some(key) = &self.attribute.key {
            let text = match key {
                Expr::Lit(literal) if matches!(literal.lit, Lit::Str(_)) => {
                    quote_spanned! { key.span() => #room::std::format!(#literal) }
                }
                key => {
                    let text = self.asked(key);
                    quote_spanned! { key.span() => #room::std::string::ToString::to_string(&(#text)) }
                }
            };
            return quote! { __key.custom(#text); };
        }
        let parts = || {
            let arguments = self.function.arguments.iter();
            arguments.filter(|argument| argument.role == Role::Part)
        };
        // Nothing else has a name for its type.
        let word = Ident::new("impl", Span::call_site());
        let unnamed = parts().filter(|argument| mentions(&argument.ty.to_token_stream(), &word));
        let named = unnamed.map(|argument| {
            let ident = &argument.ident;
            quote! { __key.type_named(::core::any::type_name_of_val(&#ident)); }
        });
        let parts = parts().map(|argument| {
            let ident = &argument.ident;
            quote_spanned! { argument.ty.span() => #room::part(&#ident) }
        });
        let tuple = tuple(parts.collect());
        quote! { #(#named)* __key.arguments(&#tuple); }
    }

    /// An expression over the arguments; a closure is given them by reference.
    pub(super) fn asked(&self, expr: &Expr) -> TokenStream {
        let Expr::Closure(closure) = expr else {
            return expr.to_token_stream();
        };
        let room = self.room();
        let arguments = self
            .function
            .arguments
            .iter()
            .filter(|argument| argument.role != Role::Apart);
        let given = arguments.map(|argument| &argument.ident);
        let (patterns, given): (Vec<_>, Vec<_>) = closure.inputs.iter().zip(given).unzip();
        let body = &closure.body;
        // All at once, since a pattern may have another argument's name; and in a closure still, for what it returns.
        quote_spanned! { expr.span() => #room::answer(|| { let (#(#patterns,)*) = (#(&#given,)*); #body }) }
    }

    pub(super) fn source(&self) -> u64 {
        let item = &self.function.item;
        let mut tokens = item.sig.to_token_stream();
        item.block.to_tokens(&mut tokens);
        crate::source::hash(tokens)
    }
}

/// Larger tuples have no `Serialize`.
const MOST: usize = 16;

/// A tuple of so many, in tuples where they are more than a tuple may have.
fn tuple(parts: Vec<TokenStream>) -> TokenStream {
    if parts.len() <= MOST {
        return quote! { (#(#parts,)*) };
    }
    let chunks = parts.chunks(MOST).map(|chunk| tuple(chunk.to_vec()));
    tuple(chunks.collect())
}
