/// Reads and writes an enum as words, one per variant. An empty text is the default.
macro_rules! words {
    ($name:ident is $what:literal: $($variant:ident = $word:literal),+) => {
        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    "" => Ok(Self::default()),
                    $($word => Ok(Self::$variant),)+
                    _ => Err(format!(concat!("{:?} is ", $what), text)),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self {
                    $(Self::$variant => $word,)+
                })
            }
        }
    };
}
