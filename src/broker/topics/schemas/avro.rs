//! Avro schemas: whether a reader with one schema can read what was written with another.
//!
//! [`AvroSchema::parse`] takes what the Avro library takes that Pulsar 4.0.8 has (1.11, without a check of default values);
//! [`check_read`] follows that library's `Resolver`, down to where it differs from the text of the specification: the names
//! of records do not matter, and symbols of an enum may be missing.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// Types of one schema; more are refused.
const TYPES_MAX: usize = 10_000;

/// Pairs of types inside pairs of types that are compared; deeper ones count as not readable.
const DEPTH_MAX: u32 = 200;

/// The place of a type in [`AvroSchema::types`].
type TypeId = usize;

/// A parsed schema.
#[derive(Debug)]
pub(crate) struct AvroSchema {
    types: Vec<AvroType>,
    root: TypeId,
    json: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Primitive {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
}

#[derive(Debug)]
enum AvroType {
    Primitive(Primitive),
    Array(TypeId),
    Map(TypeId),
    Union(Vec<TypeId>),
    Fixed {
        name: Name,
        size: i64,
    },
    Enum {
        name: Name,
    },
    Record {
        name: Name,
        fields: Vec<Field>,
    },
    /// A record whose fields are still being parsed.
    Unfinished,
}

/// The full name of a type, and the other full names that it goes by.
#[derive(Debug, Clone)]
struct Name {
    full: String,
    aliases: BTreeSet<String>,
}

impl Name {
    /// Without the namespace.
    fn short(&self) -> &str {
        self.full.rsplit('.').next().unwrap_or(&self.full)
    }
}

#[derive(Debug)]
struct Field {
    name: String,
    aliases: BTreeSet<String>,
    schema: TypeId,
    default: Option<Value>,
}

/// Parsing.
impl AvroSchema {
    /// Parses JSON; what it nests is bounded by its parser. The error says what is wrong with it.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, String> {
        let json = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let mut parser = Parser { types: Vec::new(), named: BTreeMap::new() };
        let root = parser.parse(&json, "")?;
        Ok(Self { types: parser.types, root, json })
    }

    /// Whether a default value is one of this type; of a union, of its first branch.
    fn takes(&self, id: TypeId, value: &Value, depth: u32) -> bool {
        if depth >= DEPTH_MAX {
            return false;
        }
        let inner = |id: TypeId, value: &Value| self.takes(id, value, depth + 1);
        match (self.get(id), value) {
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

    fn get(&self, id: TypeId) -> &AvroType {
        &self.types[id]
    }
}

struct Parser {
    types: Vec<AvroType>,
    named: BTreeMap<String, TypeId>,
}

impl Parser {
    /// `namespace` is that of the type around, empty for none.
    fn parse(&mut self, json: &Value, namespace: &str) -> Result<TypeId, String> {
        match json {
            Value::String(name) => self.by_name(name, namespace),
            Value::Array(branches) => self.union(branches, namespace),
            Value::Object(object) => self.object(object, namespace),
            other => Err(format!("No type: {other}")),
        }
    }

    fn add(&mut self, kind: AvroType) -> Result<TypeId, String> {
        if self.types.len() >= TYPES_MAX {
            return Err(format!("more than {TYPES_MAX} types"));
        }
        self.types.push(kind);
        Ok(self.types.len() - 1)
    }

    fn by_name(&mut self, name: &str, namespace: &str) -> Result<TypeId, String> {
        if let Some(primitive) = primitive(name) {
            return self.add(AvroType::Primitive(primitive));
        }
        let known = self.named.get(&full_name(name, namespace)).or_else(|| self.named.get(name));
        known.copied().ok_or_else(|| format!("\"{name}\" is not a defined name"))
    }

    fn union(&mut self, branches: &[Value], namespace: &str) -> Result<TypeId, String> {
        let (mut ids, mut seen) = (Vec::with_capacity(branches.len()), BTreeSet::new());
        for branch in branches {
            let id = self.parse(branch, namespace)?;
            let key = match &self.types[id] {
                AvroType::Union(_) => return Err("Nested union".to_owned()),
                AvroType::Primitive(primitive) => format!("{primitive:?}"),
                AvroType::Array(_) => "array".to_owned(),
                AvroType::Map(_) => "map".to_owned(),
                AvroType::Fixed { name, .. } | AvroType::Enum { name } | AvroType::Record { name, .. } => {
                    format!(".{}", name.full)
                }
                AvroType::Unfinished => format!("#{id}"),
            };
            if !seen.insert(key) {
                return Err(format!("Duplicate in union: {branch}"));
            }
            ids.push(id);
        }
        self.add(AvroType::Union(ids))
    }

    fn object(&mut self, object: &Map<String, Value>, namespace: &str) -> Result<TypeId, String> {
        let inner = object.get("type").ok_or("No type")?;
        let Value::String(kind) = inner else { return self.parse(inner, namespace) };
        let part = |name: &str| object.get(name).ok_or_else(|| format!("No {name} in a type {kind}"));
        match kind.as_str() {
            "record" | "error" => self.record(object, namespace),
            "enum" => {
                let symbols = part("symbols")?.as_array().ok_or("Enum has no symbols")?;
                let mut seen = BTreeSet::new();
                for symbol in symbols {
                    let symbol = symbol.as_str().ok_or("Enum symbol is no text")?;
                    check_name(symbol)?;
                    if !seen.insert(symbol) {
                        return Err(format!("Duplicate enum symbol: {symbol}"));
                    }
                }
                let name = type_name(object, namespace)?;
                self.define(AvroType::Enum { name: name.clone() }, &name)
            }
            "fixed" => {
                let size = part("size")?.as_i64().filter(|size| *size >= 0).ok_or("Invalid or no size")?;
                let name = type_name(object, namespace)?;
                self.define(AvroType::Fixed { name: name.clone(), size }, &name)
            }
            "array" => {
                let items = self.parse(part("items")?, namespace)?;
                self.add(AvroType::Array(items))
            }
            "map" => {
                let values = self.parse(part("values")?, namespace)?;
                self.add(AvroType::Map(values))
            }
            name => self.by_name(name, namespace),
        }
    }

    fn define(&mut self, kind: AvroType, name: &Name) -> Result<TypeId, String> {
        let id = self.add(kind)?;
        match self.named.insert(name.full.clone(), id) {
            None => Ok(id),
            Some(_) => Err(format!("Can't redefine: {}", name.full)),
        }
    }

    fn record(&mut self, object: &Map<String, Value>, namespace: &str) -> Result<TypeId, String> {
        let name = type_name(object, namespace)?;
        // Its fields may name it.
        let id = self.define(AvroType::Unfinished, &name)?;
        let inner_namespace = name.full.rsplit_once('.').map_or("", |(namespace, _)| namespace).to_owned();
        let fields_json = object.get("fields").and_then(Value::as_array).ok_or("Record has no fields")?;
        let (mut fields, mut seen) = (Vec::with_capacity(fields_json.len()), BTreeSet::new());
        for field in fields_json {
            let field_name = field.get("name").and_then(Value::as_str).ok_or("No field name")?;
            check_name(field_name)?;
            if !seen.insert(field_name) {
                return Err(format!("Duplicate field {field_name} in record {}", name.full));
            }
            let json = field.get("type").ok_or_else(|| format!("No field type: {field_name}"))?;
            fields.push(Field {
                name: field_name.to_owned(),
                aliases: texts(field.get("aliases")).map(str::to_owned).collect(),
                schema: self.parse(json, &inner_namespace)?,
                default: field.get("default").cloned(),
            });
        }
        self.types[id] = AvroType::Record { name, fields };
        Ok(id)
    }
}

fn primitive(name: &str) -> Option<Primitive> {
    Some(match name {
        "null" => Primitive::Null,
        "boolean" => Primitive::Boolean,
        "int" => Primitive::Int,
        "long" => Primitive::Long,
        "float" => Primitive::Float,
        "double" => Primitive::Double,
        "bytes" => Primitive::Bytes,
        "string" => Primitive::String,
        _ => return None,
    })
}

fn texts(json: Option<&Value>) -> impl Iterator<Item = &str> {
    json.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() { name.to_owned() } else { format!("{namespace}.{name}") }
}

/// Name, namespace and aliases of a named type inside of `around`.
fn type_name(object: &Map<String, Value>, around: &str) -> Result<Name, String> {
    let name = object.get("name").and_then(Value::as_str).ok_or("No name in schema")?;
    name.rsplit('.').next().map_or(Ok(()), check_name)?;
    if primitive(name).is_some() {
        return Err(format!("Schemas may not be named after primitive types: {name}"));
    }
    let namespace = object.get("namespace").and_then(Value::as_str).unwrap_or(around);
    let full = full_name(name, namespace);
    let own_namespace = full.rsplit_once('.').map_or("", |(namespace, _)| namespace).to_owned();
    let aliases = texts(object.get("aliases")).map(|alias| full_name(alias, &own_namespace)).collect();
    Ok(Name { full, aliases })
}

fn check_name(name: &str) -> Result<(), String> {
    let mut letters = name.chars();
    let is_good_first = letters.next().is_some_and(|first| first.is_alphabetic() || first == '_');
    if is_good_first && letters.all(|letter| letter.is_alphanumeric() || letter == '_') {
        return Ok(());
    }
    Err(format!("Illegal name: {name:?}"))
}

/// Whether what was written with `writer` can be read with `reader`; the error says what cannot.
pub(crate) fn check_read(writer: &AvroSchema, reader: &AvroSchema) -> Result<(), String> {
    // The library does not rename what is equal, so that aliases have no effect.
    if writer.json == reader.json {
        return Ok(());
    }
    let mut resolver = Resolver { writer, reader, renamed: aliases_of(reader), seen: BTreeMap::new(), depth: 0 };
    resolver.resolve(writer.root, reader.root)
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
    /// Pairs of records that were compared, or are being compared, and what came out if they do not fit.
    seen: BTreeMap<(TypeId, TypeId), Option<String>>,
    depth: u32,
}

impl<'a> Resolver<'a> {
    fn resolve(&mut self, written: TypeId, read: TypeId) -> Result<(), String> {
        if self.depth >= DEPTH_MAX {
            return Err(format!("types inside each other more than {DEPTH_MAX} deep"));
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
                None => Err(format!("no branch of the reader's union fits {}", describe(writer.get(written)))),
            },
            (AvroType::Array(written), AvroType::Array(read)) | (AvroType::Map(written), AvroType::Map(read)) => {
                self.resolve(*written, *read)
            }
            (AvroType::Fixed { name, size }, AvroType::Fixed { name: other, size: other_size }) => {
                if self.short_name(name) == other.short() && size == other_size {
                    return Ok(());
                }
                Err(format!("fixed {} of {size} bytes is not {} of {other_size}", name.full, other.full))
            }
            (AvroType::Enum { name }, AvroType::Enum { name: other }) => match self.short_name(name) == other.short() {
                true => Ok(()),
                false => Err(format!("enum {} is not {}", name.full, other.full)),
            },
            (AvroType::Record { .. }, AvroType::Record { .. }) => self.resolve_records(written, read),
            (AvroType::Primitive(from), AvroType::Primitive(to)) if from == to || promotes(*from, *to) => Ok(()),
            (from, to) => Err(format!("{} cannot be read as {}", describe(from), describe(to))),
        }
    }

    /// The reader's name for a type of the writer.
    fn reader_name(&self, name: &'a Name) -> &'a str {
        self.renamed.get(name.full.as_str()).copied().unwrap_or(&name.full)
    }

    fn short_name(&self, name: &'a Name) -> &'a str {
        self.reader_name(name).rsplit('.').next().unwrap_or_default()
    }

    fn resolve_records(&mut self, written: TypeId, read: TypeId) -> Result<(), String> {
        if let Some(outcome) = self.seen.get(&(written, read)) {
            return outcome.clone().map_or(Ok(()), Err);
        }
        // What is met again on the way down fits if all the rest does.
        self.seen.insert((written, read), None);
        let result = self.resolve_fields(written, read);
        self.seen.insert((written, read), result.clone().err());
        result
    }

    fn resolve_fields(&mut self, written: TypeId, read: TypeId) -> Result<(), String> {
        let (writer, reader) = (self.writer, self.reader);
        let (AvroType::Record { name, fields }, AvroType::Record { name: other, fields: wanted }) =
            (writer.get(written), reader.get(read))
        else {
            return Err("not two records".to_owned());
        };
        let has_aliases = self.reader_name(name) == other.full;
        let source = |field: &Field| {
            let is_alias = |one: &&Field| has_aliases && field.aliases.contains(&one.name);
            fields.iter().find(is_alias).or_else(|| fields.iter().find(|one| one.name == field.name))
        };
        for field in wanted {
            match source(field) {
                Some(found) => self
                    .resolve(found.schema, field.schema)
                    .map_err(|error| format!("field `{}` of {}: {error}", field.name, other.full))?,
                None if field.default.as_ref().is_some_and(|default| reader.takes(field.schema, default, 0)) => {}
                None => {
                    return Err(format!(
                        "field `{}` of {} is not written and has no default that fits",
                        field.name, other.full
                    ));
                }
            }
        }
        Ok(())
    }

    /// The branch of a reader's union for a type of the writer that is no union: the first of its kind, of named types that of
    /// its name; of records else one that can be read, one of the same short name before others; else what it can be promoted
    /// to.
    fn matching_branch(&mut self, written: TypeId, branches: &[TypeId]) -> Option<TypeId> {
        let (writer, reader) = (self.writer, self.reader);
        let from = writer.get(written);
        let mut readable: Option<(TypeId, bool)> = None;
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
                    if is_better && self.resolve(written, *branch).is_ok() {
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
    fn what_is_no_schema_is_refused_by_its_reason() {
        let field = |kind: &str| format!(r#"{{"type":"record","name":"R","fields":[{{"name":"a","type":{kind}}}]}}"#);
        let cases = [
            ("", "EOF"),
            ("{nope", "key must be a string"),
            ("3", "No type: 3"),
            ("{}", "No type"),
            (r#""Unknown""#, "\"Unknown\" is not a defined name"),
            (r#"{"type":"record","name":"R"}"#, "Record has no fields"),
            (r#"{"type":"record","name":"9","fields":[]}"#, "Illegal name: \"9\""),
            (r#"{"type":"record","name":"int","fields":[]}"#, "Schemas may not be named after primitive types: int"),
            (r#"{"type":"enum","name":"E","symbols":["A","A"]}"#, "Duplicate enum symbol: A"),
            (r#"{"type":"fixed","name":"F","size":-1}"#, "Invalid or no size"),
            (r#"["int","int"]"#, "Duplicate in union: \"int\""),
            (r#"["int",["null"]]"#, "Nested union"),
            (&field(r#"{"type":"record","name":"R","fields":[]}"#), "Can't redefine: R"),
            (&field("\"S\""), "\"S\" is not a defined name"),
        ];
        for (json, reason) in cases {
            let error = AvroSchema::parse(json.as_bytes()).expect_err(json);
            assert!(error.starts_with(reason), "{json}: {error}");
        }
        let deep = "[".repeat(1_000);
        assert!(AvroSchema::parse(deep.as_bytes()).is_err());
    }

    #[test]
    fn names_are_found_in_their_namespaces() {
        parse(
            r#"{"type":"record","name":"R","namespace":"a.b","fields":[
                {"name":"e","type":{"type":"enum","name":"E","symbols":["X"]}},
                {"name":"again","type":"E"},
                {"name":"in_full","type":"a.b.E"},
                {"name":"self","type":["null","a.b.R"]}]}"#,
        );
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
}
