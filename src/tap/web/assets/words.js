// What happened, in plain words: for people who do not know the protocol yet.

/** What each command is about: it decides on the colour. */
const FAMILIES = {
  lookup: ["LOOKUP", "LOOKUP_RESPONSE", "PARTITIONED_METADATA", "PARTITIONED_METADATA_RESPONSE", "TOPIC_MIGRATED"],
  send: ["PRODUCER", "PRODUCER_SUCCESS", "SEND", "SEND_RECEIPT", "SEND_ERROR", "CLOSE_PRODUCER"],
  receive: ["SUBSCRIBE", "MESSAGE", "ACTIVE_CONSUMER_CHANGE", "CLOSE_CONSUMER", "UNSUBSCRIBE", "SEEK", "REACHED_END_OF_TOPIC"],
  ack: ["ACK", "ACK_RESPONSE"],
  flow: ["FLOW"],
  again: ["REDELIVER_UNACKNOWLEDGED_MESSAGES"],
};
const FAMILY_OF = new Map(Object.entries(FAMILIES).flatMap(([family, commands]) => commands.map((command) => [command, family])));

export function family(record) {
  if (record.event === "violation" || record.error) return "error";
  if (record.redelivered || record.before?.why === "asked" || record.before?.why === "again") return "again";
  return FAMILY_OF.get(record.command) ?? "link";
}

/** Text of a peer without characters that steer: they are shown as what they are. */
export function clean(text) {
  const steering = /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;
  return String(text).replace(steering, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
}

/** The part of a topic's name that tells it apart for a person. */
export const shortTopic = (topic) => clean(topic).replace(/^(persistent|non-persistent):\/\/[^/]*\/[^/]*\//, "");

/** `toLocaleString` makes one at each call, which takes longer than all else of a row. */
const NUMBERS = new Intl.NumberFormat("en");
export const grouped = (number) => NUMBERS.format(number);

export const plural = (count, one, many = `${one}s`) => `${grouped(count)} ${count === 1 ? one : many}`;

/** Microseconds for people. */
export function took(micros) {
  if (micros < 1000) return `${micros} µs`;
  if (micros < 1e6) return `${(micros / 1e3).toFixed(micros < 1e4 ? 2 : 1)} ms`;
  return `${(micros / 1e6).toFixed(2)} s`;
}

/** Microseconds since the first observation. */
export const clock = (micros) => `${(micros / 1e6).toFixed(3)}`;

export const size = (bytes) => (bytes < 1024 ? plural(bytes, "byte") : `${(bytes / 1024).toFixed(1)} KiB`);

/** Key and properties of the messages in a frame. */
const contents = (record) => [
  record.key !== undefined ? `key ${clean(record.key)}` : null,
  ...(record.properties ?? []).map(([name, value]) => `${clean(name)}=${clean(value)}`),
];

const number = (n) => `no. ${n}`;
const times = (record) => (record.messages > 1 ? `${record.messages} messages in one entry` : "a message");

/** The reason of the other one: a receipt, or what a repeat goes back to. */
const receipt = (record) => (record.after === undefined ? "no receipt yet" : `its receipt is ${number(record.after)}`);

/** Who a side is: its name before all else. */
const introduced = (record) =>
  (record.detail ?? "")
    .replace(/^version (\d+) (?:client|server) (.+?)(?= (?:authentication|max_message_size|to) |$)/, "$2, protocol version $1")
    .replace(/ (authentication|max_message_size|to) /g, ", $1 ");

/** Which request it was. */
const answer = (record) =>
  record.answers ? `answers ${record.before ? number(record.before.n) : record.answers.command}` : "";

const SENTENCES = {
  CONNECT: (r) => `opens the connection · ${introduced(r)}`,
  CONNECTED: (r) => `the connection stands · ${introduced(r)}`,
  LOOKUP: (r) => `which broker serves ${shortTopic(r.topic ?? "?")}?`,
  LOOKUP_RESPONSE: (r) => (r.detail ?? "").replace(/^to /, / redirect/.test(r.detail) ? "ask another broker: " : "served by ").replace(" authoritative", ""),
  PARTITIONED_METADATA: (r) => `how many partitions has ${shortTopic(r.topic ?? "?")}?`,
  PARTITIONED_METADATA_RESPONSE: (r) => (/partitions 0$/.test(r.detail ?? "") ? "it has none: one plain topic" : r.detail ?? ""),
  PRODUCER: (r) => `wants to send to ${shortTopic(r.topic ?? "?")} as ${r.endpoint}`,
  PRODUCER_SUCCESS: (r) => `may send · ${r.detail ?? ""}`,
  SEND: (r) => `${times(r)} · ${receipt(r)}`,
  SEND_RECEIPT: (r) => `receipt for ${r.before ? number(r.before.n) : "a SEND"}: stored as ${r.id}`,
  SEND_ERROR: (r) => `not stored: sequence id ${r.sequence}`,
  SUBSCRIBE: subscribing,
  FLOW: (r) => `permits for ${(r.detail ?? "").replace(/^permits /, "")} more messages`,
  MESSAGE: delivery,
  ACK: (r) => `done with ${r.id ?? r.ids?.slice(0, 3).join(", ") ?? "messages"}${/cumulative/.test(r.detail ?? "") ? " and all before it" : ""} for good`,
  ACK_RESPONSE: () => "noted: acknowledged",
  REDELIVER_UNACKNOWLEDGED_MESSAGES: (r) => `not done with ${r.ids ? `${r.ids.slice(0, 3).join(", ")}: send it` : "what is unacknowledged: send all of it"} again`,
  SUCCESS: () => "done",
  ERROR: () => "refused",
  CLOSE_PRODUCER: (r) => `${r.endpoint} ends${r.up ? "" : ", by the broker's wish"} ${r.detail ?? ""}`,
  CLOSE_CONSUMER: (r) => `${r.endpoint} ends${r.up ? "" : ", by the broker's wish"} ${r.detail ?? ""}`,
  ACTIVE_CONSUMER_CHANGE: (r) => (r.detail === "active" ? "this consumer gets the messages now" : "another consumer gets the messages now"),
  PING: () => "are you there?",
  PONG: () => "yes",
  CONSUMER_STATS: (r) => `how does ${r.endpoint} stand?`,
  CONSUMER_STATS_RESPONSE: () => "the broker's own figures",
  GET_LAST_MESSAGE_ID_RESPONSE: (r) => `the last message · ${r.detail ?? ""}`,
  AUTH_CHALLENGE: () => "show again who you are",
  AUTH_RESPONSE: () => "fresh credentials",
  GET_LAST_MESSAGE_ID: () => "which message is the last one?",
  SEEK: (r) => `continue from ${r.id ?? r.detail}`,
  UNSUBSCRIBE: () => "the subscription is not needed any more",
};

/** The subscription before the topic, which stands beside it too. */
function subscribing(record) {
  const topic = shortTopic(record.topic ?? "?");
  const [, name, type, rest] = /^subscription (.+) type (\w+)(.*)$/.exec(record.detail ?? "") ?? [];
  return name ? `subscribes as ${name} (${type}) to ${topic}${rest && ` ·${rest}`}` : `subscribes to ${topic}`;
}

/** A delivery, and why it is not the first one. */
function delivery(record) {
  const why = record.before?.why;
  const of = record.messages > 1 ? `, ${record.messages} messages in one entry` : "";
  if (why === "asked") return `${record.id} again: ${number(record.before.n)} asked for it`;
  if (why === "again") return `${record.id} again: ${number(record.before.n)} not acknowledged`;
  if (record.redelivered) return `${record.id} again, after ${plural(record.redelivered, "time")}`;
  return `delivers ${record.id}${of}${record.after === undefined ? " · not acknowledged yet" : ""}`;
}

/** What is behind the sentence: numbers that tie it to others, keys and properties. */
export function aside(record) {
  const parts = [record.endpoint, record.topic && shortTopic(record.topic)];
  if (record.sequence !== undefined) parts.push(`sequence id ${record.sequence}`);
  if (record.command === "MESSAGE" && record.redelivered) parts.push(`delivery ${record.redelivered + 1}`);
  return [...parts, ...contents(record)].filter(Boolean).join(" · ");
}

/** One line about an observation. */
export function sentence(record) {
  switch (record.event) {
    case "opened":
      return `connection #${record.connection}: ${record.client} to ${record.broker}${record.partial ? ", its beginning is not captured" : ""}`;
    case "closed":
      return `the ${record.up ? "client" : "broker"} ${record.reset ? "resets" : "ends"} connection #${record.connection}`;
    case "missing":
      return `${plural(record.bytes, "byte")} are missing from the capture`;
    case "other":
      return `${record.detail}, which is not looked at`;
    case "skipped":
      return `${plural(record.bytes, "byte")} are skipped, up to a frame that can be read`;
    case "violation":
      return `the ${record.by} broke a rule: ${clean(record.detail)}`;
    case "run":
      return `${plural(record.count, "frame")} in ${took(record.until - record.at)}`;
    case "frame":
      break;
    default:
      return "not kept: there was no room";
  }
  const words = SENTENCES[record.command];
  let text = words ? words(record) : record.detail ?? "";
  if (record.error) text = `refused: ${record.error.name}: ${record.error.message}`;
  else if (!words || ["SUCCESS", "CONSUMER_STATS_RESPONSE"].includes(record.command)) text = [text, answer(record)].filter(Boolean).join(" · ");
  return clean(text).trim();
}

/** The guide, by family: what a person has to have read to read the diagram. */
export const GUIDE = [
  ["flow", "Permits", "A permit is the right to send one message to a consumer. The client gives permits by FLOW, as many as it has room for, and each message uses one up. Without permits the broker waits: so it never floods a client."],
  ["send", "Send and receipt", "A client hands a message to the broker by SEND. The broker answers with a SEND_RECEIPT once it is stored. Both have the same sequence id, by which they belong together; the row of one gives the number of the other. The receipt says where the message is stored: ledger:entry, such as 7:0, and by this id it is named from then on."],
  ["receive", "Message", "The broker delivers a stored message to a consumer by MESSAGE. Until the consumer acknowledges it, it counts as unacknowledged."],
  ["ack", "Acknowledgement", "By ACK the client says that it is done with a message: the broker does not deliver it again to this subscription."],
  ["again", "Why a message comes twice", "Because the client has said that it is not done with it and wants it again (REDELIVER_UNACKNOWLEDGED_MESSAGES, a negative acknowledgement), or because its consumer went away before it acknowledged. The row of the second delivery names the row that is the reason."],
  ["lookup", "Lookup", "Each topic is served by one broker. The client asks which one, and is sent on until it is there."],
  ["link", "Connections, requests and answers", "A lane at the left is the client's end of one TCP connection (#1, #2): a client may have several. A request has an id, and its answer the same one; how long that took is at the right."],
  ["error", "Errors", "What one side refused, and rules of the protocol that one side broke, each with the chapter that tells of it."],
];

/** What the ledgers count. */
export const LEDGER_WORDS = {
  "pending sends": "messages that were sent and have no receipt yet",
  "send to receipt": "how long the broker took to store a message",
  permits: "how many more messages the broker may send",
  queue: "delivered, and no new permit for it yet: at most so many wait in the client",
  unacknowledged: "delivered, and not acknowledged yet",
};
