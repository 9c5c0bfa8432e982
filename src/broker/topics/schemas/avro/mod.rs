//! Avro schemas: whether a reader with one schema can read what was written with another.
//!
//! [`AvroSchema::parse`] takes what the Avro library takes that Pulsar 4.0.8 has (1.11, without a check of default values);
//! [`check_read`] follows that library's `Resolver`, down to where it differs from the text of the specification: the names
//! of records do not matter, and symbols of an enum may be missing.

mod read;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

pub(crate) use self::read::check_read;

/// Types of one schema, and aliases of them; more are refused.
const TYPES_MAX: usize = 10_000;

/// Bytes of the full name of a type; a longer one is refused. A namespace is part of the name of each type inside.
const NAME_BYTES_MAX: usize = 1_024;

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
        let mut parser = Parser { types: Vec::new(), named: BTreeMap::new(), aliases: 0 };
        let root = parser.parse(&json, "")?;
        Ok(Self { types: parser.types, root, json })
    }

    fn get(&self, id: TypeId) -> &AvroType {
        &self.types[id]
    }
}

struct Parser {
    types: Vec<AvroType>,
    named: BTreeMap<String, TypeId>,
    /// Of all types so far.
    aliases: usize,
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
                let name = self.type_name(object, namespace)?;
                self.define(AvroType::Enum { name: name.clone() }, &name)
            }
            "fixed" => {
                let size = part("size")?.as_i64().filter(|size| *size >= 0).ok_or("Invalid or no size")?;
                let name = self.type_name(object, namespace)?;
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
        let name = self.type_name(object, namespace)?;
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

    /// Name, namespace and aliases of a named type inside of `around`.
    fn type_name(&mut self, object: &Map<String, Value>, around: &str) -> Result<Name, String> {
        let name = object.get("name").and_then(Value::as_str).ok_or("No name in schema")?;
        name.rsplit('.').next().map_or(Ok(()), check_name)?;
        if primitive(name).is_some() {
            return Err(format!("Schemas may not be named after primitive types: {name}"));
        }
        let namespace = object.get("namespace").and_then(Value::as_str).unwrap_or(around);
        let full = full_name(name, namespace);
        let aliases_json = object.get("aliases");
        self.aliases += texts(aliases_json).count();
        if full.len() > NAME_BYTES_MAX || self.aliases > TYPES_MAX {
            return Err(format!(
                "a name has more than {NAME_BYTES_MAX} bytes, or types have more than {TYPES_MAX} aliases"
            ));
        }
        let own_namespace = full.rsplit_once('.').map_or("", |(namespace, _)| namespace).to_owned();
        let aliases = texts(aliases_json).map(|alias| full_name(alias, &own_namespace)).collect();
        Ok(Name { full, aliases })
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

fn check_name(name: &str) -> Result<(), String> {
    let mut letters = name.chars();
    let is_good_first = letters.next().is_some_and(|first| first.is_alphabetic() || first == '_');
    if is_good_first && letters.all(|letter| letter.is_alphanumeric() || letter == '_') {
        return Ok(());
    }
    Err(format!("Illegal name: {name:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> AvroSchema {
        AvroSchema::parse(json.as_bytes()).expect(json)
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
    fn names_are_bounded() {
        let long = "n".repeat(NAME_BYTES_MAX);
        let inside = format!(
            r#"{{"type":"record","name":"R","namespace":"{long}","fields":[
                {{"name":"e","type":{{"type":"enum","name":"E","symbols":[]}}}}]}}"#
        );
        let aliases = vec![r#""A""#; TYPES_MAX + 1].join(",");
        let aliased = format!(r#"{{"type":"record","name":"R","aliases":[{aliases}],"fields":[]}}"#);
        for json in [inside, aliased] {
            let error = AvroSchema::parse(json.as_bytes()).expect_err("too large");
            assert!(error.starts_with("a name has more than 1024 bytes"), "{error}");
        }
    }
}
