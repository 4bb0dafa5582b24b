//! HTML of which only constants are markup: whatever is computed is text.

/// A document that grows.
#[derive(Debug, Default)]
pub struct Html(String);

impl Html {
    /// Markup. It is known when the program is built, so nothing that the API says can be in it.
    pub fn markup(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Text, between elements or as the value of an attribute in double quotes.
    pub fn text(&mut self, text: &str) -> &mut Self {
        for character in text.chars() {
            match character {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                // What has no place in a document, such as escape sequences of terminals, is shown as missing.
                character if character.is_control() && character != '\n' => self.0.push('\u{fffd}'),
                character => self.0.push(character),
            }
        }
        self
    }

    /// A row of a table.
    pub fn row<'a>(&mut self, cells: impl IntoIterator<Item = &'a str>) -> &mut Self {
        self.markup("<tr>");
        for cell in cells {
            self.markup("<td>").text(cell).markup("</td>");
        }
        self.markup("</tr>\n")
    }

    /// The whole of it.
    #[must_use]
    pub fn finish(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_text_cannot_become_markup() {
        let mut html = Html::default();
        html.markup("<p title=\"").text("\" onclick='x()'").markup("\">").text("</p><script>&\u{1b}[31m");
        let wanted = "<p title=\"&quot; onclick=&#39;x()&#39;\">&lt;/p&gt;&lt;script&gt;&amp;\u{fffd}[31m";
        assert_eq!(html.finish(), wanted);
    }
}
