//! Whether a reader's schema can read what a writer's has written.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{AvroSchema, AvroType, Field, Name, Primitive, TypeId};

/// Pairs of types inside pairs of types that are compared; deeper ones count as not readable.
const DEPTH_MAX: u32 = 200;

/// Types, branches, fields and default values that are looked at for one pair of schemas. Two that take more count as not
/// readable: references make the work far larger than the schemas are.
const STEPS_MAX: usize = 100_000;

/// Whether what was written with `writer` can be read with `reader`; the error says what cannot.
pub(crate) fn check_read(writer: &AvroSchema, reader: &AvroSchema) -> Result<(), String> {
    // The library does not rename what is equal, so that aliases have no effect.
    if writer.json == reader.json {
        return Ok(());
    }
    let mut resolver = Resolver {
        writer,
        reader,
        renamed: aliases_of(reader),
        seen: BTreeMap::new(),
        fitting: Vec::new(),
        depth: 0,
        trials: 0,
        steps: STEPS_MAX,
    };
    let result = resolver.resolve(writer.root, reader.root);
    result.map_err(|reason| match resolver.steps {
        0 => format!("the two cannot be read: they take more than {STEPS_MAX} comparisons"),
        _ => reason,
    })
}

/// The names that types of the reader go by, and their full names.
fn aliases_of(reader: &AvroSchema) -> BTreeMap<&str, &str> {
    let names = reader.types.iter().filter_map(|kind| match kind {
        AvroType::Fixed { name, .. } | AvroType::Enum { name } | AvroType::Record { name, .. } => Some(name),
        _ => None,
    });
    names.flat_map(|name| name.aliases.iter().map(|alias| (alias.as_str(), name.full.as_str()))).collect()
}

struct Resolver<'a> {
    writer: &'a AvroSchema,
    reader: &'a AvroSchema,
    /// What the reader calls types of the writer that have another name.
    renamed: BTreeMap<&'a str, &'a str>,
    /// Pairs of records that were compared, or are being compared, and whether they fit.
    seen: BTreeMap<(TypeId, TypeId), bool>,
    /// Those of `seen` that fit, in the order of their start.
    fitting: Vec<(TypeId, TypeId)>,
    depth: u32,
    /// Branches around that are tried: why one does not fit is not said.
    trials: u32,
    /// What is left of [`STEPS_MAX`].
    steps: usize,
}

impl<'a> Resolver<'a> {
    /// Takes from the steps that are left; where they are too few, nothing fits from here on.
    fn spend(&mut self, steps: usize) -> bool {
        let left = self.steps.checked_sub(steps);
        self.steps = left.unwrap_or(0);
        left.is_some()
    }

    /// A pair that does not fit. The text is built only where it is shown.
    fn unfit(&self, reason: impl FnOnce() -> String) -> Result<(), String> {
        Err(if self.trials == 0 { reason() } else { String::new() })
    }

    fn resolve(&mut self, written: TypeId, read: TypeId) -> Result<(), String> {
        if self.depth >= DEPTH_MAX {
            return self.unfit(|| format!("types inside each other more than {DEPTH_MAX} deep"));
        }
        if !self.spend(1) {
            return Err(String::new());
        }
        self.depth += 1;
        let result = self.resolve_types(written, read);
        self.depth -= 1;
        result
    }

    /// | writer | reader | can be read if |
    /// | --- | --- | --- |
    /// | union | any | each branch can |
    /// | any other | union | a branch fits it |
    /// | primitive | primitive | they are equal, or the writer's can be promoted |
    /// | array, map | the same | their elements can |
    /// | fixed | fixed | name and size are equal |
    /// | enum | enum | the names are equal |
    /// | record | record | the fields of both can, and those of the reader alone have a default |
    /// | any other pair | | never |
    fn resolve_types(&mut self, written: TypeId, read: TypeId) -> Result<(), String> {
        let (writer, reader) = (self.writer, self.reader);
        match (writer.get(written), reader.get(read)) {
            (AvroType::Union(branches), _) => branches.iter().try_for_each(|branch| self.resolve(*branch, read)),
            (_, AvroType::Union(branches)) => match self.matching_branch(written, branches) {
                Some(branch) => self.resolve(written, branch),
                None => {
                    self.unfit(|| format!("no branch of the reader's union fits {}", describe(writer.get(written))))
                }
            },
            (AvroType::Array(written), AvroType::Array(read)) | (AvroType::Map(written), AvroType::Map(read)) => {
                self.resolve(*written, *read)
            }
            (AvroType::Fixed { name, size }, AvroType::Fixed { name: other, size: other_size }) => {
                if self.short_name(name) == other.short() && size == other_size {
                    return Ok(());
                }
                self.unfit(|| format!("fixed {} of {size} bytes is not {} of {other_size}", name.full, other.full))
            }
            (AvroType::Enum { name }, AvroType::Enum { name: other }) => match self.short_name(name) == other.short() {
                true => Ok(()),
                false => self.unfit(|| format!("enum {} is not {}", name.full, other.full)),
            },
            (AvroType::Record { .. }, AvroType::Record { .. }) => self.resolve_records(written, read),
            (AvroType::Primitive(from), AvroType::Primitive(to)) if from == to || promotes(*from, *to) => Ok(()),
            (from, to) => self.unfit(|| format!("{} cannot be read as {}", describe(from), describe(to))),
        }
    }

    /// The reader's name for a type of the writer.
    fn reader_name(&self, name: &'a Name) -> &'a str {
        self.renamed.get(name.full.as_str()).copied().unwrap_or(&name.full)
    }

    fn short_name(&self, name: &'a Name) -> &'a str {
        self.reader_name(name).rsplit('.').next().unwrap_or_default()
    }

    /// What is met again on the way down fits if all the rest does. So a pair that fits may do so only because one around it
    /// is taken to: where that one fails, those since its start are forgotten. A failure stands, as no more fits without what
    /// was assumed.
    fn resolve_records(&mut self, written: TypeId, read: TypeId) -> Result<(), String> {
        let pair = (written, read);
        match self.seen.get(&pair) {
            Some(true) => return Ok(()),
            Some(false) => {
                let (writer, reader) = (self.writer.get(written), self.reader.get(read));
                return self.unfit(|| format!("{} cannot be read as {}", describe(writer), describe(reader)));
            }
            None => {}
        }
        let start = self.fitting.len();
        self.seen.insert(pair, true);
        self.fitting.push(pair);
        let result = self.resolve_fields(written, read);
        if result.is_err() {
            for assumed in self.fitting.drain(start..) {
                self.seen.remove(&assumed);
            }
            self.seen.insert(pair, false);
        }
        result
    }

    fn resolve_fields(&mut self, written: TypeId, read: TypeId) -> Result<(), String> {
        let (writer, reader) = (self.writer, self.reader);
        let (AvroType::Record { name, fields }, AvroType::Record { name: other, fields: wanted }) =
            (writer.get(written), reader.get(read))
        else {
            return self.unfit(|| "not two records".to_owned());
        };
        let has_aliases = self.reader_name(name) == other.full;
        let aliases = |field: &'a Field| field.aliases.iter().filter(|_| has_aliases);
        let looked_at = fields.len() + wanted.iter().map(|field| 1 + aliases(field).count()).sum::<usize>();
        if !self.spend(looked_at) {
            return Err(String::new());
        }
        let places: BTreeMap<&str, usize> =
            fields.iter().enumerate().map(|(place, field)| (field.name.as_str(), place)).collect();
        let place = |name: &String| places.get(name.as_str()).copied();
        for field in wanted {
            // By an alias before its own name, of several by the one that is written first.
            match aliases(field).filter_map(place).min().or_else(|| place(&field.name)) {
                Some(found) => {
                    let result = self.resolve(fields[found].schema, field.schema);
                    result
                        .or_else(|error| self.unfit(|| format!("field `{}` of {}: {error}", field.name, other.full)))?;
                }
                None if field.default.as_ref().is_some_and(|default| self.takes(field.schema, default, 0)) => {}
                None => self.unfit(|| {
                    format!("field `{}` of {} is not written and has no default that fits", field.name, other.full)
                })?,
            }
        }
        Ok(())
    }

    /// Whether a default value is one of this type of the reader; of a union, of its first branch.
    fn takes(&mut self, id: TypeId, value: &Value, depth: u32) -> bool {
        if depth >= DEPTH_MAX || !self.spend(1) {
            return false;
        }
        let reader = self.reader;
        let mut inner = |id: TypeId, value: &Value| self.takes(id, value, depth + 1);
        match (reader.get(id), value) {
            (AvroType::Primitive(primitive), value) => match primitive {
                Primitive::Null => value.is_null(),
                Primitive::Boolean => value.is_boolean(),
                Primitive::Int | Primitive::Long | Primitive::Float | Primitive::Double => value.is_number(),
                Primitive::Bytes | Primitive::String => value.is_string(),
            },
            (AvroType::Fixed { .. } | AvroType::Enum { .. }, value) => value.is_string(),
            (AvroType::Array(items), Value::Array(values)) => values.iter().all(|value| inner(*items, value)),
            (AvroType::Map(values), Value::Object(object)) => object.values().all(|value| inner(*values, value)),
            (AvroType::Union(branches), value) => branches.first().is_some_and(|first| inner(*first, value)),
            (AvroType::Record { fields, .. }, Value::Object(object)) => fields.iter().all(|field| {
                let value = object.get(&field.name).or(field.default.as_ref());
                value.is_some_and(|value| inner(field.schema, value))
            }),
            _ => false,
        }
    }

    fn fits(&mut self, written: TypeId, read: TypeId) -> bool {
        self.trials += 1;
        let result = self.resolve(written, read);
        self.trials -= 1;
        result.is_ok()
    }

    /// The branch of a reader's union for a type of the writer that is no union: the first of its kind, of named types that of
    /// its name; of records else one that can be read, one of the same short name before others; else what it can be promoted
    /// to.
    fn matching_branch(&mut self, written: TypeId, branches: &[TypeId]) -> Option<TypeId> {
        let (writer, reader) = (self.writer, self.reader);
        let from = writer.get(written);
        let mut readable: Option<(TypeId, bool)> = None;
        if !self.spend(branches.len()) {
            return None;
        }
        for branch in branches {
            match (from, reader.get(*branch)) {
                (AvroType::Primitive(from), AvroType::Primitive(to)) if from == to => return Some(*branch),
                (AvroType::Array(_), AvroType::Array(_)) | (AvroType::Map(_), AvroType::Map(_)) => {
                    return Some(*branch);
                }
                (AvroType::Fixed { name, .. }, AvroType::Fixed { name: other, .. })
                | (AvroType::Enum { name }, AvroType::Enum { name: other })
                | (AvroType::Record { name, .. }, AvroType::Record { name: other, .. })
                    if self.reader_name(name) == other.full =>
                {
                    return Some(*branch);
                }
                (AvroType::Record { name, .. }, AvroType::Record { name: other, .. }) => {
                    let has_name = self.short_name(name) == other.short();
                    let is_better = readable.is_none_or(|(_, had_name)| has_name && !had_name);
                    if is_better && self.fits(written, *branch) {
                        readable = Some((*branch, has_name));
                    }
                }
                _ => {}
            }
        }
        let promoted = || {
            let AvroType::Primitive(from) = from else { return None };
            let is_wider = |to: &AvroType| matches!(to, AvroType::Primitive(to) if promotes(*from, *to));
            branches.iter().copied().find(|branch| is_wider(reader.get(*branch)))
        };
        readable.map(|(branch, _)| branch).or_else(promoted)
    }
}

fn promotes(from: Primitive, to: Primitive) -> bool {
    use Primitive::{Bytes, Double, Float, Int, Long, String};
    matches!(
        (from, to),
        (Int, Long | Float | Double) | (Long, Float | Double) | (Float, Double) | (String, Bytes) | (Bytes, String)
    )
}

fn describe(kind: &AvroType) -> String {
    match kind {
        AvroType::Primitive(primitive) => format!("{primitive:?}").to_lowercase(),
        AvroType::Array(_) => "an array".to_owned(),
        AvroType::Map(_) => "a map".to_owned(),
        AvroType::Union(_) => "a union".to_owned(),
        AvroType::Fixed { name, .. } => format!("fixed {}", name.full),
        AvroType::Enum { name } => format!("enum {}", name.full),
        AvroType::Record { name, .. } => format!("record {}", name.full),
        AvroType::Unfinished => "a type".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> AvroSchema {
        AvroSchema::parse(json.as_bytes()).expect(json)
    }

    fn record(fields: &str) -> AvroSchema {
        parse(&format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#))
    }

    #[test]
    fn what_cannot_be_read_is_said_by_field() {
        let (writer, reader) = (record(r#"{"name":"a","type":"long"}"#), record(r#"{"name":"a","type":"int"}"#));
        let error = check_read(&writer, &reader).expect_err("narrower");
        assert_eq!(error, "field `a` of R: long cannot be read as int");
        assert_eq!(check_read(&reader, &writer), Ok(()));
        let reader = record(r#"{"name":"a","type":"long"},{"name":"b","type":"string","default":7}"#);
        let error = check_read(&writer, &reader).expect_err("the default is of another type");
        assert_eq!(error, "field `b` of R is not written and has no default that fits");
    }

    #[test]
    fn types_that_name_each_other_end() {
        let lists = [3, 5].map(|depth: usize| {
            let mut json = r#""R""#.to_owned();
            for level in 1..depth {
                json = format!(r#"{{"type":"record","name":"L{level}","fields":[{{"name":"n","type":{json}}}]}}"#);
            }
            record(&format!(r#"{{"name":"n","type":{json}}}"#))
        });
        assert_eq!(check_read(&lists[0], &lists[1]), Ok(()));
    }

    /// Each of the records has two fields of the next one, with defaults that are to be filled in.
    #[test]
    fn defaults_inside_each_other_end() {
        let corpus = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/avro/defaults-inside-each-other"));
        let (writer, reader) = corpus.split_once('\n').expect("two lines");
        let error = check_read(&parse(writer), &parse(reader)).expect_err("2^40 defaults");
        assert_eq!(error, "the two cannot be read: they take more than 100000 comparisons");
    }

    /// Each branch of the writer's union fits the last one of the reader's alone.
    #[test]
    fn unions_of_thousands_of_records_end() {
        let union = |prefix: &str, others: &str| {
            let record = |number: usize| {
                let kind = if number == 3_999 { "int" } else { others };
                let fields = format!(r#"[{{"name":"f","type":"{kind}"}}]"#);
                format!(r#"{{"type":"record","name":"{prefix}{number}","fields":{fields}}}"#)
            };
            parse(&format!("[{}]", (0..4_000).map(record).collect::<Vec<_>>().join(",")))
        };
        let error = check_read(&union("A", "int"), &union("B", "string")).expect_err("16 million pairs");
        assert_eq!(error, "the two cannot be read: they take more than 100000 comparisons");
    }

    /// While `A` is tried as `X`, `B` inside fits `Y` if `A` fits `X`, which a later field of `A` refutes. Another branch takes
    /// `A`; the field after it is of `B` and `Y` again.
    #[test]
    fn what_fits_only_beside_what_fails_does_not_fit() {
        let root = |b: &str, a: &str, own: &str| {
            let inner = format!(r#"{{"type":"record","name":"{b}","fields":[{{"name":"a","type":["null","{a}"]}}]}}"#);
            let outer = format!(
                r#"{{"type":"record","name":"{a}","fields":[{{"name":"b","type":{inner}}},{{"name":"c","type":"{own}"}}]}}"#
            );
            (outer, format!(r#"{{"name":"again","type":"{b}"}}"#))
        };
        let (written, again) = root("B", "A", "string");
        let writer = record(&format!(r#"{{"name":"u","type":{written}}},{again}"#));
        let (read, read_again) = root("Y", "X", "int");
        let other = r#"{"type":"record","name":"Other","fields":[]}"#;
        let reader = record(&format!(r#"{{"name":"u","type":[{read},{other}]}},{read_again}"#));
        let error = check_read(&writer, &reader).expect_err("`B` leads to `A`");
        assert_eq!(error, "field `again` of R: field `a` of Y: no branch of the reader's union fits record A");
    }
}
