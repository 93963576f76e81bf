//! Why stored bytes are no value.

/// Why bytes are not a value for this reader. Each is a miss, and counted by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// Bytes without an envelope, and the wanted type is not exactly bytes, text or an integer.
    Foreign,
    /// An envelope of another version, or with flags that this version does not know.
    Version,
    /// Shorter than an envelope, or of another length than it says.
    Length,
    /// The checksum over key, header and payload does not fit.
    Checksum,
    /// Another type, or another schema version.
    Schema,
    /// Written by another codec.
    Codec,
    /// The payload is not a value of the wanted type.
    Payload,
    /// Larger than the bound.
    TooLarge,
    /// The key holds no string but a list, hash or the like.
    WrongType,
    /// Written before the key's node took the key over.
    Epoch,
    /// Its namespace was cleared after its compute began.
    Generation,
    /// A tag of it was invalidated after its compute began.
    Tag,
}

impl Refusal {
    /// All of them, in the order of their counters.
    pub const ALL: [Self; 12] = [
        Self::Foreign,
        Self::Version,
        Self::Length,
        Self::Checksum,
        Self::Schema,
        Self::Codec,
        Self::Payload,
        Self::TooLarge,
        Self::WrongType,
        Self::Epoch,
        Self::Generation,
        Self::Tag,
    ];

    /// Its name in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Foreign => "foreign",
            Self::Version => "version",
            Self::Length => "length",
            Self::Checksum => "checksum",
            Self::Schema => "schema",
            Self::Codec => "codec",
            Self::Payload => "payload",
            Self::TooLarge => "too_large",
            Self::WrongType => "wrong_type",
            Self::Epoch => "epoch",
            Self::Generation => "generation",
            Self::Tag => "tag",
        }
    }
}
