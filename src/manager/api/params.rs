//! The parameters of the Python server's calls: from the query, from a form or from JSON, in this order.

use std::collections::HashMap;

use axum::http::{HeaderMap, Uri, header};
use percent_encoding::percent_decode_str;
use serde_json::Value;

/// A parameter as it came.
pub(super) enum Given {
    Text(String),
    Json(Value),
}

/// Those of one request.
pub(super) struct Params {
    texts: HashMap<String, String>,
    json: Option<Value>,
    /// Whether the body says that it is JSON, and is none.
    malformed: bool,
}

/// What is wrong with one, by the number that the Python server has for it.
pub(super) struct Wrong {
    pub(super) code: u16,
    pub(super) why: String,
}

/// A parameter is not there.
const MISSING: u16 = 560;

impl Params {
    pub(super) fn of(uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Self {
        let mut texts = HashMap::new();
        let kind = headers
            .get(header::CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok());
        let kind = kind.unwrap_or_default().to_ascii_lowercase();
        if kind.starts_with("application/x-www-form-urlencoded") {
            pairs(&String::from_utf8_lossy(body), &mut texts);
        }
        // What the query says counts more.
        let mut query = HashMap::new();
        pairs(uri.query().unwrap_or_default(), &mut query);
        texts.extend(query);
        let is_json = kind
            .split(';')
            .next()
            .is_some_and(|kind| kind == "application/json" || kind.ends_with("+json"));
        let json = is_json.then(|| serde_json::from_slice(body).ok());
        let json = json.flatten();
        Self {
            malformed: is_json && json.is_none() && !body.is_empty(),
            texts,
            json,
        }
    }

    /// A parameter, and nothing where it is not there. A body is looked at only where the query has none.
    fn get(&self, name: &str) -> Result<Option<Given>, Wrong> {
        if let Some(text) = self.texts.get(name) {
            return Ok(Some(Given::Text(text.clone())));
        }
        if self.malformed {
            let why = "请求处理失败".to_owned();
            return Err(Wrong { code: 500, why });
        }
        let fields = self.json.as_ref().and_then(Value::as_object);
        let value = fields.and_then(|fields| fields.get(name));
        let value = value.filter(|value| !value.is_null());
        Ok(value.map(|value| Given::Json(value.clone())))
    }

    /// A text that has to be there.
    pub(super) fn text(&self, name: &'static str) -> Result<String, Wrong> {
        match self.get(name)? {
            None => Err(missing(name)),
            Some(Given::Text(text) | Given::Json(Value::String(text))) => Ok(text),
            Some(Given::Json(other)) => Ok(other.to_string()),
        }
    }

    /// A text that may be there.
    pub(super) fn optional(&self, name: &'static str) -> Result<Option<String>, Wrong> {
        match self.text(name) {
            Ok(text) => Ok(Some(text).filter(|text| !text.is_empty())),
            Err(wrong) if wrong.code == MISSING => Ok(None),
            Err(wrong) => Err(wrong),
        }
    }

    /// A number that has to be there, from `least` to `most`. Of a fraction the whole part counts.
    pub(super) fn number(&self, name: &'static str, least: i64, most: i64) -> Result<i64, Wrong> {
        let number = match self.get(name)? {
            None => return Err(missing(name)),
            Some(Given::Text(text) | Given::Json(Value::String(text))) => {
                let whole = text.split('.').next().unwrap_or_default();
                whole.trim().parse().ok()
            }
            Some(Given::Json(number)) => number.as_i64(),
        };
        let number: i64 = number.ok_or_else(|| Wrong {
            code: 562,
            why: format!("{name}字段无法转换成(int)类型!"),
        })?;
        if number < least {
            let why = format!("{name}字段必须大于等于{least}!");
            return Err(Wrong { code: 571, why });
        }
        if number > most {
            let why = format!("{name}字段必须小于等于{most}!");
            return Err(Wrong { code: 573, why });
        }
        Ok(number)
    }
}

fn missing(name: &str) -> Wrong {
    Wrong {
        code: MISSING,
        why: format!("{name}字段不能为空!"),
    }
}

/// The first of each name counts.
fn pairs(text: &str, into: &mut HashMap<String, String>) {
    let decoded = |part: &str| {
        let part = part.replace('+', " ");
        percent_decode_str(&part).decode_utf8_lossy().into_owned()
    };
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        into.entry(decoded(name)).or_insert_with(|| decoded(value));
    }
}
