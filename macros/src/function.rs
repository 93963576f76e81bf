//! The function, and whether it can be memoized as the attribute has it.

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::spanned::Spanned as _;
use syn::{
    Error, Expr, FnArg, GenericArgument, GenericParam, ImplItemFn, Pat, PathArguments, Receiver,
    ReceiverKind, Result, ReturnType, Type,
};

use crate::attribute::Attribute;

/// What an argument is to the key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// A part of it.
    Part,
    /// What the attribute's own key may be made of.
    Material,
    /// Nothing: the cache, or skipped.
    Apart,
}

/// An argument that is not `self`.
pub(crate) struct Argument {
    pub(crate) ident: Ident,
    pub(crate) ty: Type,
    pub(crate) role: Role,
}

/// What the function returns.
pub(crate) struct Returned {
    pub(crate) ty: Type,
    /// Whether errors are told from values.
    pub(crate) fallible: bool,
    /// What it is that is shared, where it is an `Arc`.
    pub(crate) shared: Option<Type>,
}

pub(crate) struct Function {
    pub(crate) item: ImplItemFn,
    pub(crate) arguments: Vec<Argument>,
    pub(crate) returned: Returned,
    pub(crate) cache: Expr,
    /// Of a type: its companions stand beside it.
    pub(crate) is_method: bool,
}

impl Function {
    pub(crate) fn new(item: ImplItemFn, attribute: &Attribute) -> Result<Self> {
        check_form(&item)?;
        let receiver = item.sig.receiver();
        let of_self = Ident::new("Self", Span::call_site());
        let is_method = receiver.is_some()
            || attribute.associated.is_some()
            || mentions(&item.to_token_stream(), &of_self);
        let mut arguments = arguments(&item)?;
        let cache = cache(&item, &arguments, attribute)?;
        mark(&mut arguments, &cache, attribute)?;
        check_arguments(&item, &arguments, attribute)?;
        check_self(receiver, attribute)?;
        let returned = returned(&item, attribute)?;
        let function = Self {
            arguments,
            returned,
            cache,
            is_method,
            item,
        };
        function.check_options(attribute)?;
        function.check_task(attribute)?;
        Ok(function)
    }

    pub(crate) fn is_async(&self) -> bool {
        self.item.sig.asyncness.is_some()
    }

    /// The types and constants that the function is given and that tell its calls apart: not those of its cache alone, or of what is
    /// skipped.
    pub(crate) fn keyed_generics(&self) -> impl Iterator<Item = &GenericParam> {
        let mut of_key = self.returned.ty.to_token_stream();
        let mut apart = TokenStream::new();
        for argument in &self.arguments {
            let tokens = match argument.role {
                Role::Apart => &mut apart,
                Role::Part | Role::Material => &mut of_key,
            };
            argument.ty.to_tokens(tokens);
        }
        let tells = move |ident: &Ident| mentions(&of_key, ident) || !mentions(&apart, ident);
        let params = self.item.sig.generics.params.iter();
        params.filter(move |param| match param {
            GenericParam::Type(param) => tells(&param.ident),
            GenericParam::Const(param) => tells(&param.ident),
            GenericParam::Lifetime(_) => false,
        })
    }

    fn check_options(&self, attribute: &Attribute) -> Result<()> {
        if let (Some(_), Some((_, span))) = (&attribute.options, &attribute.ttl) {
            let why = "give the ttl in `options`, as `Options::ttl(...)`, or here, not in both";
            return Err(Error::new(*span, why));
        }
        let fails = result_of(&self.returned.ty).is_some();
        if let (Some(span), false) = (attribute.cache_errors, fails) {
            let why = "this function returns no `Result`: it has no errors to cache";
            return Err(Error::new(span, why));
        }
        match &attribute.map_err {
            Some(map_err) if !self.returned.fallible => {
                let why = "this function has no errors beside its values: there is nothing to map";
                Err(Error::new_spanned(map_err, why))
            }
            _ => Ok(()),
        }
    }

    fn check_task(&self, attribute: &Attribute) -> Result<()> {
        let Some(span) = attribute.task else {
            return Ok(());
        };
        let refused =
            |what: &dyn ToTokens, why: &str| Err(Error::new_spanned(what.to_token_stream(), why));
        if !self.is_async() {
            let why = "only an async function runs in a task of its own";
            return Err(Error::new(span, why));
        }
        if !self.returned.fallible {
            let why = "a task may end without a value: with `task` the function returns a `Result`, and its errors are not cached";
            return refused(&self.returned.ty, why);
        }
        if let Some(receiver) = self.item.sig.receiver() {
            let why = "a task cannot borrow `self`: make it an associated function that takes what it needs, or leave `task` out";
            return refused(receiver, why);
        }
        let borrows = |argument: &&Argument| matches!(argument.ty, Type::Reference(_));
        match self.arguments.iter().find(borrows) {
            Some(argument) => {
                let why = "a task cannot borrow its arguments: take this one by value";
                refused(&argument.ty, why)
            }
            None => Ok(()),
        }
    }
}

fn check_form(item: &ImplItemFn) -> Result<()> {
    let sig = &item.sig;
    let refused =
        |what: &dyn ToTokens, why: &str| Err(Error::new_spanned(what.to_token_stream(), why));
    if let Some(token) = sig.constness {
        return refused(&token, "a const function runs where there is no cache");
    }
    if let Some(abi) = &sig.abi {
        return refused(abi, "functions for other languages cannot be memoized");
    }
    if !matches!(sig.safety, syn::Safety::Default) {
        return refused(
            &sig.ident,
            "an unsafe function cannot be memoized: wrap it in a safe one",
        );
    }
    if let Some(variadic) = &sig.variadic {
        return refused(variadic, "arguments without a number make no key");
    }
    Ok(())
}

fn arguments(item: &ImplItemFn) -> Result<Vec<Argument>> {
    let typed = item.sig.inputs.iter().filter_map(|input| match input {
        FnArg::Typed(typed) => Some(typed),
        FnArg::Receiver(_) => None,
    });
    let argument = |typed: &syn::PatType| match &*typed.pat {
        Pat::Ident(pat) if pat.ident.to_string().starts_with("__") => {
            let why = "names with two underscores are the macro's own: give this argument another";
            Err(Error::new_spanned(pat, why))
        }
        Pat::Ident(pat) if pat.subpat.is_none() && pat.by_ref.is_none() => Ok(Argument {
            ident: pat.ident.clone(),
            ty: (*typed.ty).clone(),
            role: Role::Part,
        }),
        pat => {
            let why = "give this argument a name, and take it apart in the function's body";
            Err(Error::new_spanned(pat, why))
        }
    };
    typed.map(argument).collect()
}

/// Where the values are kept: as the attribute says, or an argument.
fn cache(item: &ImplItemFn, arguments: &[Argument], attribute: &Attribute) -> Result<Expr> {
    if let Some(cache) = &attribute.cache {
        return Ok(cache.clone());
    }
    let is_cache = |argument: &&Argument| argument.ident == "cache" || is_cache(&argument.ty);
    match arguments.iter().find(is_cache) {
        Some(argument) => {
            let ident = &argument.ident;
            Ok(syn::parse_quote!(#ident))
        }
        None => {
            let why = "which cache? Name one, `#[memoize(cache = CACHE)]`, a field, `cache = self.cache`, or take it as an argument, \
                       `cache: &impl Cache`";
            Err(Error::new(item.sig.ident.span(), why))
        }
    }
}

/// Whether a type says that it is a cache: `&impl Cache`, `&SharedCache`.
fn is_cache(ty: &Type) -> bool {
    match ty {
        Type::Reference(reference) => is_cache(&reference.elem),
        Type::Path(path) => path
            .path
            .segments
            .last()
            .is_some_and(|last| last.ident == "SharedCache"),
        Type::ImplTrait(bounds) => {
            let cache = Ident::new("Cache", Span::call_site());
            mentions(&bounds.to_token_stream(), &cache)
        }
        _ => false,
    }
}

fn mark(arguments: &mut [Argument], cache: &Expr, attribute: &Attribute) -> Result<()> {
    if attribute.key.is_some() {
        arguments
            .iter_mut()
            .for_each(|argument| argument.role = Role::Material);
    }
    for skipped in &attribute.skip {
        let found = arguments
            .iter_mut()
            .find(|argument| argument.ident == *skipped);
        let Some(argument) = found else {
            let why = format!("there is no argument `{skipped}` to skip");
            return Err(Error::new(skipped.span(), why));
        };
        argument.role = Role::Apart;
    }
    if let Expr::Path(path) = cache
        && let Some(ident) = path.path.get_ident()
        && let Some(argument) = arguments
            .iter_mut()
            .find(|argument| argument.ident == *ident)
    {
        argument.role = Role::Apart;
    }
    Ok(())
}

fn check_arguments(item: &ImplItemFn, arguments: &[Argument], attribute: &Attribute) -> Result<()> {
    let skipped = |argument: &Argument| attribute.skip.contains(&argument.ident);
    for argument in arguments {
        if let Type::Reference(reference) = &argument.ty
            && let Some(token) = &reference.mutability
            && !skipped(argument)
        {
            let why = format!(
                "a cached call changes nothing, so `{0}` would stay as it is: leave it out of the key with `skip({0})` if that is right",
                argument.ident
            );
            return Err(Error::new(token.span(), why));
        }
    }
    match &item.sig.output {
        ReturnType::Type(_, ty) if matches!(**ty, Type::ImplTrait(_)) => {
            let why = "what has no name cannot be cached: return a type that does";
            Err(Error::new_spanned(ty, why))
        }
        _ => Ok(()),
    }
}

fn check_self(receiver: Option<&Receiver>, attribute: &Attribute) -> Result<()> {
    let Some(receiver) = receiver else {
        return match &attribute.key_self {
            Some(key_self) => {
                let why = "this function has no `self`";
                Err(Error::new_spanned(key_self, why))
            }
            None => Ok(()),
        };
    };
    if let Some(span) = attribute.associated {
        let why = "a function with `self` is a method anyway: leave `associated` out";
        return Err(Error::new(span, why));
    }
    match &receiver.kind {
        ReceiverKind::Reference(_, _, None) => Ok(()),
        _ => {
            let why = "a memoized method takes `&self`: a cached call neither changes nor consumes anything";
            Err(Error::new_spanned(receiver, why))
        }
    }
}

fn returned(item: &ImplItemFn, attribute: &Attribute) -> Result<Returned> {
    let ReturnType::Type(_, ty) = &item.sig.output else {
        let why = "this function returns nothing: there is nothing to cache";
        return Err(Error::new(item.sig.ident.span(), why));
    };
    let result = result_of(ty).filter(|_| attribute.cache_errors.is_none());
    let shared = match &result {
        Some(value) => value.as_ref().and_then(arc_of),
        None => arc_of(ty),
    };
    Ok(Returned {
        fallible: result.is_some(),
        shared,
        ty: (**ty).clone(),
    })
}

/// What a `Result`, by whatever path, is of, as far as that is written there.
fn result_of(ty: &Type) -> Option<Option<Type>> {
    let Type::Path(path) = ty else {
        return None;
    };
    let last = path.path.segments.last()?;
    (last.ident == "Result").then(|| first_type(&last.arguments))
}

fn arc_of(ty: &Type) -> Option<Type> {
    let Type::Path(path) = ty else {
        return None;
    };
    let last = path.path.segments.last()?;
    let shared = (last.ident == "Arc").then(|| first_type(&last.arguments))??;
    // What has no size is cached as it is.
    let is_sized = match &shared {
        Type::Slice(_) | Type::TraitObject(_) => false,
        Type::Path(path) => !path.path.is_ident("str"),
        _ => true,
    };
    is_sized.then_some(shared)
}

fn first_type(arguments: &PathArguments) -> Option<Type> {
    let PathArguments::AngleBracketed(arguments) = arguments else {
        return None;
    };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty.clone()),
        _ => None,
    })
}

/// Whether a name stands in these tokens.
pub(crate) fn mentions(tokens: &TokenStream, name: &Ident) -> bool {
    tokens.clone().into_iter().any(|token| match token {
        TokenTree::Ident(ident) => ident == *name,
        TokenTree::Group(group) => mentions(&group.stream(), name),
        // In a format string.
        TokenTree::Literal(literal) => captures(&literal.to_string(), &name.to_string()),
        TokenTree::Punct(_) => false,
    })
}

/// Whether a format string captures a name: `{name}`, `{name:?}`.
fn captures(literal: &str, name: &str) -> bool {
    literal.match_indices('{').any(|(at, _)| {
        let rest = literal[at + 1..].trim_start();
        rest.strip_prefix(name)
            .is_some_and(|rest| rest.trim_start().starts_with(['}', ':']))
    })
}
