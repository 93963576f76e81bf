//! What stands in `#[memoize(...)]`.

use proc_macro2::{Ident, Span};
use syn::ext::IdentExt as _;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Error, Expr, ExprArray, Lit, LitBool, LitStr, Path, Result, Token, UnOp};

use crate::span_of_time;

/// How long a value lives.
pub(crate) enum Ttl {
    Seconds(i64),
    Millis(u64),
    Forever,
    Computed(Expr),
}

/// A switch, and where it was thrown.
pub(crate) type Switch = Option<Span>;

#[derive(Default)]
pub(crate) struct Attribute {
    pub(crate) krate: Option<Path>,
    pub(crate) cache: Option<Expr>,
    pub(crate) ttl: Option<(Ttl, Span)>,
    pub(crate) options: Option<Expr>,
    pub(crate) tags: Vec<Expr>,
    pub(crate) name: Option<LitStr>,
    pub(crate) key: Option<Expr>,
    pub(crate) key_self: Option<Expr>,
    pub(crate) skip: Vec<Ident>,
    pub(crate) unless: Option<Expr>,
    pub(crate) force_if: Option<Expr>,
    pub(crate) stale_if: Option<Expr>,
    pub(crate) store_if: Option<Expr>,
    pub(crate) map_err: Option<Expr>,
    pub(crate) cache_none: Switch,
    pub(crate) cache_errors: Switch,
    pub(crate) source_check: Switch,
    pub(crate) task: Switch,
    pub(crate) associated: Switch,
}

const KNOWN: &str = "cache, ttl, options, tags, name, key, key_self, skip(..), unless, force_if, stale_if, store_if, map_err, \
                     cache_none, cache_errors, source_check, task, associated and crate";

/// What flask_caching and `cached` call the same.
const ELSEWHERE: [(&str, &str); 12] = [
    ("timeout", "`ttl`"),
    ("ttl_secs", "`ttl`"),
    ("forced_update", "`force_if`"),
    ("force_refresh", "`force_if`"),
    ("is_stale", "`stale_if`"),
    ("response_filter", "`store_if`"),
    ("make_name", "`name`"),
    ("args_to_ignore", "`skip(..)`"),
    ("make_cache_key", "`key`"),
    ("key_prefix", "`name`, or `key_prefix` of the cache,"),
    ("convert", "`key`"),
    ("cache_err", "`cache_errors`"),
];

impl Parse for Attribute {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut attribute = Self::default();
        let mut seen: Vec<Ident> = Vec::new();
        while !input.is_empty() {
            if input.peek(Lit) {
                return Err(input.error("say what this is: `ttl = 5`, say"));
            }
            // `crate` is a keyword.
            let name = input.call(Ident::parse_any)?;
            if seen.contains(&name) {
                let why = format!("`{name}` is given twice");
                return Err(Error::new(name.span(), why));
            }
            attribute.take(&name, input)?;
            seen.push(name);
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(attribute)
    }
}

impl Attribute {
    fn take(&mut self, name: &Ident, input: ParseStream<'_>) -> Result<()> {
        match name.to_string().as_str() {
            "crate" => self.krate = Some(value(input, Path::parse_mod_style)?),
            "cache" => self.cache = Some(value(input, Expr::parse)?),
            "ttl" => {
                let expr = value(input, Expr::parse)?;
                self.ttl = Some((ttl(expr)?, name.span()));
            }
            "options" => self.options = Some(value(input, Expr::parse)?),
            "tags" => self.tags = value(input, tags)?,
            "name" => self.name = Some(value(input, function_name)?),
            "key" => self.key = Some(value(input, Expr::parse)?),
            "key_self" => self.key_self = Some(value(input, unquoted)?),
            "skip" => self.skip = skipped(input)?,
            "unless" => self.unless = Some(value(input, Expr::parse)?),
            "force_if" => self.force_if = Some(value(input, Expr::parse)?),
            "stale_if" => self.stale_if = Some(value(input, Expr::parse)?),
            "store_if" => self.store_if = Some(value(input, Expr::parse)?),
            "map_err" => self.map_err = Some(value(input, Expr::parse)?),
            "cache_none" => self.cache_none = switch(name, input)?,
            "cache_errors" => self.cache_errors = switch(name, input)?,
            "source_check" => self.source_check = switch(name, input)?,
            "task" => self.task = switch(name, input)?,
            "associated" => self.associated = switch(name, input)?,
            other => {
                let why = match ELSEWHERE.iter().find(|(theirs, _)| *theirs == other) {
                    Some((_, ours)) => format!("`{other}` is called {ours} here"),
                    None => format!("there is no `{other}` here; there are {KNOWN}"),
                };
                return Err(Error::new(name.span(), why));
            }
        }
        Ok(())
    }
}

fn value<T>(input: ParseStream<'_>, parse: impl FnOnce(ParseStream<'_>) -> Result<T>) -> Result<T> {
    input.parse::<Token![=]>()?;
    parse(input)
}

/// Alone it is on; `= false` turns it off.
fn switch(name: &Ident, input: ParseStream<'_>) -> Result<Switch> {
    if !input.peek(Token![=]) {
        return Ok(Some(name.span()));
    }
    let on = value(input, LitBool::parse)?;
    Ok(on.value.then_some(name.span()))
}

fn skipped(input: ParseStream<'_>) -> Result<Vec<Ident>> {
    if !input.peek(syn::token::Paren) {
        let why =
            "write the arguments that are no part of the key in parentheses: `skip(db, trace_id)`";
        return Err(input.error(why));
    }
    let content;
    syn::parenthesized!(content in input);
    let names = Punctuated::<Ident, Token![,]>::parse_terminated(&content)?;
    Ok(names.into_iter().collect())
}

/// An expression, or one in quotes.
fn unquoted(input: ParseStream<'_>) -> Result<Expr> {
    if input.peek(LitStr) {
        return input.parse::<LitStr>()?.parse();
    }
    input.parse()
}

fn tags(input: ParseStream<'_>) -> Result<Vec<Expr>> {
    if !input.peek(syn::token::Bracket) {
        return Err(input.error("write tags in brackets: `tags = [\"users\", \"user:{id}\"]`"));
    }
    Ok(input.parse::<ExprArray>()?.elems.into_iter().collect())
}

fn function_name(input: ParseStream<'_>) -> Result<LitStr> {
    let name: LitStr = input.parse()?;
    let text = name.value();
    let why = if text.is_empty() {
        "a name must not be empty"
    } else if text.len() > 128 {
        "a name has 128 bytes at most: arguments have to fit into a key beside it"
    } else if text.chars().any(char::is_control) {
        "a name must not hold control characters"
    } else if ["lk:", "__larder", "HASH_RING"]
        .iter()
        .any(|reserved| text.starts_with(reserved))
    {
        "names that begin with lk:, __larder or HASH_RING are reserved"
    } else {
        return Ok(name);
    };
    Err(Error::new(name.span(), why))
}

fn ttl(expr: Expr) -> Result<Ttl> {
    let (literal, negative) = match &expr {
        Expr::Lit(literal) => (&literal.lit, false),
        Expr::Unary(unary) if matches!(unary.op, UnOp::Neg(_)) => match &*unary.expr {
            Expr::Lit(literal) => (&literal.lit, true),
            _ => return Ok(Ttl::Computed(expr)),
        },
        _ => return Ok(Ttl::Computed(expr)),
    };
    match literal {
        Lit::Int(seconds) if seconds.suffix().is_empty() => {
            let seconds: i64 = seconds.base10_parse()?;
            Ok(Ttl::Seconds(if negative { -seconds } else { seconds }))
        }
        Lit::Str(text) if text.value() == "forever" => Ok(Ttl::Forever),
        Lit::Str(text) if !negative => {
            let span = span_of_time::parse(&text.value());
            let span = span.map_err(|why| Error::new(text.span(), why))?;
            let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
            Ok(Ttl::Millis(millis))
        }
        _ => {
            let why = "a ttl is a whole number of seconds (-1 is for ever), a span like \"90s\" or \"1h30m\", or an expression that \
                       gives a `Duration` or a `Ttl`";
            Err(Error::new_spanned(expr, why))
        }
    }
}
