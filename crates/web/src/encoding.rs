//! The choice of a content coding: RFC 9110, section 12.5.3.

use hyper::HeaderMap;
use hyper::header::ACCEPT_ENCODING;

/// A weight in thousandths: RFC 9110, section 12.4.2.
type Weight = u16;

/// Whether to send a response with gzip: the client accepts it, and does not prefer a response without a coding.
pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let mut gzip = None;
    let mut identity = None;
    let mut any = None;
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    for (coding, weight) in values.flat_map(|value| value.split(',')).filter_map(member) {
        // RFC 9110, section 8.4.1.3: `x-gzip` is equivalent.
        if coding.eq_ignore_ascii_case("gzip") || coding.eq_ignore_ascii_case("x-gzip") {
            gzip = gzip.max(Some(weight));
        } else if coding.eq_ignore_ascii_case("identity") {
            identity = Some(weight);
        } else if coding == "*" {
            any = Some(weight);
        }
    }
    // `*` stands for every coding that is not listed. Without a weight of its own, `identity` is the last resort.
    let gzip = gzip.or(any).unwrap_or(0);
    gzip > 0 && gzip >= identity.unwrap_or(0)
}

/// A coding and its weight. `None` if the weight is invalid.
fn member(text: &str) -> Option<(&str, Weight)> {
    let (coding, parameter) = match text.split_once(';') {
        Some((coding, parameter)) => (coding, Some(parameter.trim())),
        None => (text, None),
    };
    let weight = match parameter {
        Some(parameter) => weight(parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="))?)?,
        None => 1000,
    };
    Some((coding.trim(), weight))
}

/// `0` to `1`, with at most three decimals.
fn weight(text: &str) -> Option<Weight> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths: Weight = format!("{decimals:0<3}").parse().ok()?;
    match (whole, thousandths) {
        ("0", _) => Some(thousandths),
        ("1", 0) => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(values: &[&str], expected: bool) {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(ACCEPT_ENCODING, value.parse().unwrap());
        }
        assert_eq!(accepts_gzip(&headers), expected, "{values:?}");
    }

    #[test]
    fn gzip_is_used_if_accepted() {
        for value in [
            "gzip",
            "GZIP",
            "x-gzip",
            "deflate, gzip",
            "br;q=1.0, gzip;q=0.8, *;q=0.1",
            "*",
            "gzip ; q=0.001",
        ] {
            check(&[value], true);
        }
        check(&["br", "gzip"], true);
        check(&["identity, gzip"], true);
        check(&["identity;q=0.5, *;q=0.6"], true);
    }

    #[test]
    fn gzip_is_not_used_otherwise() {
        check(&[], false);
        for value in
            ["", "identity", "gzip;q=0", "gzip;q=0.000", "*, gzip;q=0", "identity, gzip;q=0.9", "*;q=0", "br"]
        {
            check(&[value], false);
        }
    }

    #[test]
    fn invalid_weights_are_ignored() {
        for value in [
            "gzip;q=2",
            "gzip;q=1.001",
            "gzip;q=0.0001",
            "gzip;q=-1",
            "gzip;q=",
            "gzip;level=9",
            "gzip;q=0.x",
        ] {
            check(&[value], false);
        }
    }
}
