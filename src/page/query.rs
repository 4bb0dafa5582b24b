//! What a form of the page asks for.

/// Which Services are shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// What their names must hold, which are written namespace/name:port; empty for all.
    pub service: String,
    /// Only those that have no endpoint.
    pub without_endpoints: bool,
}

impl Wanted {
    /// From the part of an address behind the question mark, as a browser writes it. What is not known says nothing.
    #[must_use]
    pub fn of(query: &str) -> Self {
        let mut wanted = Self::default();
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match name {
                "service" => decoded(value).trim().clone_into(&mut wanted.service),
                "empty" => wanted.without_endpoints = value == "1",
                _ => {}
            }
        }
        wanted
    }
}

/// Without the encoding of forms (`application/x-www-form-urlencoded`). What is no UTF-8 is shown as missing.
fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((&first, behind)) = rest.split_first() {
        rest = behind;
        let encoded = behind.first_chunk::<2>().and_then(|digits| byte(*digits));
        match (first, encoded) {
            (b'%', Some(encoded)) => {
                bytes.push(encoded);
                rest = &behind[2..];
            }
            (b'+', _) => bytes.push(b' '),
            _ => bytes.push(first),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn byte(digits: [u8; 2]) -> Option<u8> {
    let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
    u8::try_from(high? << 4 | low?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_as_a_browser_writes_it() {
        let wanted = Wanted::of("service=+kube%2ddns%3Ametrics+&empty=1&other");
        assert_eq!(wanted, Wanted { service: "kube-dns:metrics".to_owned(), without_endpoints: true });
        assert_eq!(Wanted::of(""), Wanted::default());
        assert_eq!(Wanted::of("service=%zz%4&empty=yes").service, "%zz%4");
        assert_eq!(Wanted::of("service=%ff").service, "\u{fffd}");
    }
}
