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

export const plural = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

/** Microseconds for people. */
export function took(micros) {
  if (micros < 1000) return `${micros} µs`;
  if (micros < 1e6) return `${(micros / 1e3).toFixed(micros < 1e4 ? 2 : 1)} ms`;
  return `${(micros / 1e6).toFixed(2)} s`;
}

/** Microseconds since the first observation. */
export const clock = (micros) => `${(micros / 1e6).toFixed(3)}`;

export const size = (bytes) => (bytes < 1024 ? plural(bytes, "byte") : `${(bytes / 1024).toFixed(1)} KiB`);

const number = (n) => `no. ${n}`;
const times = (record) => (record.messages > 1 ? `${record.messages} messages in one entry` : "a message");

/** Whose request it was, and how long it took. */
const answer = (record) =>
  record.answers ? `answers ${record.answers.command}${record.before ? ` ${number(record.before.n)}` : ""}` : "";

const SENTENCES = {
  CONNECT: (r) => `opens the connection · ${r.detail ?? ""}`,
  CONNECTED: (r) => `the connection stands · ${r.detail ?? ""}`,
  LOOKUP: (r) => `which broker serves ${shortTopic(r.topic ?? "?")}?`,
  LOOKUP_RESPONSE: (r) => `that topic is served by this address · ${r.detail ?? ""}`,
  PARTITIONED_METADATA: (r) => `how many partitions has ${shortTopic(r.topic ?? "?")}?`,
  PARTITIONED_METADATA_RESPONSE: (r) => (/partitions 0$/.test(r.detail ?? "") ? "it has none: one plain topic" : r.detail ?? ""),
  PRODUCER: (r) => `wants to send to ${shortTopic(r.topic ?? "?")} as ${r.endpoint}`,
  PRODUCER_SUCCESS: (r) => `may send · ${r.detail ?? ""}`,
  SEND: (r) => `${times(r)}, sequence id ${r.sequence} · ${r.after === undefined ? "no receipt yet" : `receipt: ${number(r.after)}`}`,
  SEND_RECEIPT: (r) => `receipt for ${r.before ? `SEND ${number(r.before.n)}` : "a SEND"}: stored as ${r.id} · sequence id ${r.sequence}`,
  SEND_ERROR: (r) => `not stored: sequence id ${r.sequence}`,
  SUBSCRIBE: (r) => `wants messages of ${shortTopic(r.topic ?? "?")} · ${r.detail ?? ""}`,
  FLOW: (r) => `the broker may send ${(r.detail ?? "").replace(/^permits /, "")} more messages (permits)`,
  MESSAGE: delivery,
  ACK: (r) => `done with ${r.id ?? r.ids?.slice(0, 3).join(", ") ?? "messages"}: never send it again${/cumulative/.test(r.detail ?? "") ? ", nor any before it" : ""}`,
  ACK_RESPONSE: () => "noted: acknowledged",
  REDELIVER_UNACKNOWLEDGED_MESSAGES: (r) => `negative acknowledgement: ${r.ids ? `send ${r.ids.slice(0, 3).join(", ")}` : "send all that is unacknowledged"} again`,
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

/** A delivery, and why it is not the first one. */
function delivery(record) {
  const count = record.redelivered ? `delivery ${record.redelivered + 1} of ${record.id}` : `${record.id} again`;
  if (record.before?.why === "asked") return `${count}: asked for by ${number(record.before.n)}`;
  if (record.before?.why === "again") return `${count}: not acknowledged since ${number(record.before.n)}`;
  if (record.redelivered) return count;
  return `delivers ${record.id}${record.messages > 1 ? `, ${record.messages} messages in one entry` : ""}${record.after === undefined ? " · not acknowledged yet" : ""}`;
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
      return `the ${record.by} broke ${record.rule}: ${clean(record.detail)}`;
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

/** The guide: what a person has to know to read the diagram. */
export const GUIDE = [
  ["link", "A connection", "One TCP connection from a client to a broker. On it both send frames, and each arrow is one. A request has an id, and its answer the same one: the time between them is at the right."],
  ["lookup", "Lookup", "A topic is served by one broker. The client asks which one, and is sent on until it is there."],
  ["send", "Send and receipt", "A producer numbers its messages: the sequence id. The broker answers each SEND with a SEND_RECEIPT that has the same sequence id, and says where the message is stored: ledger:entry, such as 7:0."],
  ["flow", "Permit", "A permit is the right to send one message to a consumer. The client gives permits by FLOW, as many as it has room for; each message uses one up. A broker without permits waits: it never floods a client."],
  ["receive", "Message", "The broker delivers a message to a consumer. Until it is acknowledged it counts as unacknowledged."],
  ["ack", "Acknowledgement", "ACK says that a message is done with. It is never delivered again on this subscription."],
  ["again", "Redelivery", "A message comes again where the client asks for it (a negative acknowledgement), or where its consumer went away before it acknowledged. It says how often it was delivered."],
  ["error", "Errors", "What one side refused, and rules of the protocol that one side broke, each with the chapter that tells of it."],
];

/** What the ledgers count. */
export const LEDGER_WORDS = {
  "pending sends": "messages that were sent and have no receipt yet",
  "send to receipt": "how long the broker took to store a message",
  permits: "how many more messages the broker may send",
  unacknowledged: "delivered, and not acknowledged yet",
};
