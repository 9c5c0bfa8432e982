// A capture with as many frames as one wants: a producer that sends, and a broker that stores, over TCP in a pcap file.

import { openSync, writeSync, closeSync } from "node:fs";

const varint = (value) => {
  const out = [];
  for (; value > 127; value = Math.floor(value / 128)) out.push((value % 128) | 128);
  return [...out, value];
};
const number = (field, value) => [...varint(field * 8), ...varint(value)];
const bytes = (field, value) => [...varint(field * 8 + 2), ...varint(value.length), ...value];
const text = (field, value) => bytes(field, [...Buffer.from(value)]);
const u32 = (value) => [value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255];

function frame(type, body, entry = []) {
  const command = [...number(1, type), ...bytes(type, body)];
  return [...u32(4 + command.length + entry.length), ...u32(command.length), ...command, ...entry];
}

/** `Checksum.None`: metadata and payload without the magic number, as old producers write. */
function entry(sequence) {
  const metadata = [...text(1, "p"), ...number(2, sequence), ...number(3, 1_700_000_000_000)];
  return [...u32(metadata.length), ...metadata, 104, 105];
}

/** A SEND whose payload is behind its end: that of `size` zeros. */
function largeSend(sequence, size) {
  const command = [...number(1, 6), ...bytes(6, [...number(1, 1), ...number(2, sequence)])];
  const head = entry(sequence).slice(0, -2);
  return [...u32(4 + command.length + head.length + size), ...u32(command.length), ...command, ...head];
}

const TOPIC = "persistent://public/default/many";
const [CLIENT, BROKER] = [[127, 0, 0, 1, 0xc3, 0x50], [127, 0, 0, 1, 0x19, 0xfa]];
const [TO_BROKER, TO_CLIENT] = [0, 1];

class Pcap {
  #sequence = [1, 1];
  #micros = 0;

  constructor(path) {
    this.file = openSync(path, "w");
    const head = Buffer.alloc(24);
    head.writeUInt32LE(0xa1b2c3d4, 0);
    head.writeUInt16LE(2, 4);
    head.writeUInt16LE(4, 6);
    head.writeUInt32LE(262_144, 16);
    head.writeUInt32LE(101, 20);
    writeSync(this.file, head);
  }

  packet(way, flags, payload) {
    const [from, to] = way === TO_BROKER ? [CLIENT, BROKER] : [BROKER, CLIENT];
    const head = Buffer.alloc(16 + 40);
    head.writeUInt32LE(1_700_000_000 + Math.floor(this.#micros / 1e6), 0);
    head.writeUInt32LE(this.#micros % 1e6, 4);
    head.writeUInt32LE(40 + payload.length, 8);
    head.writeUInt32LE(40 + payload.length, 12);
    head.set([0x45, 0, ...u32(40 + payload.length).slice(2), 0, 0, 0x40, 0, 64, 6, 0, 0, ...from.slice(0, 4), ...to.slice(0, 4)], 16);
    head.set([...from.slice(4), ...to.slice(4), ...u32(this.#sequence[way]), ...u32(this.#sequence[1 - way]), 0x50, flags, 0xff, 0xff], 36);
    writeSync(this.file, head);
    writeSync(this.file, payload);
    this.#sequence[way] = (this.#sequence[way] + payload.length + (flags & 3 ? 1 : 0)) >>> 0;
    this.#micros += 500;
  }
}

/** The most bytes of one packet. */
const PACKET_MAX = 60_000;

/** Writes `count` SENDs and their receipts, of messages with `size` bytes if it is given, a refused PRODUCER, and a receipt that no SEND has had. */
export function writeCapture(path, count, size = 0) {
  const pcap = new Pcap(path);
  pcap.packet(TO_BROKER, 0x02, Buffer.alloc(0));
  pcap.packet(TO_CLIENT, 0x12, Buffer.alloc(0));
  const say = (way, frames) => pcap.packet(way, 0x10, Buffer.from(frames));
  say(TO_BROKER, frame(2, [...text(1, "test"), ...number(4, 21)]));
  say(TO_CLIENT, frame(3, [...text(1, "test"), ...number(2, 21)]));
  say(TO_BROKER, frame(5, [...text(1, TOPIC), ...number(2, 1), ...number(3, 1)]));
  say(TO_CLIENT, frame(17, [...number(1, 1), ...text(2, "p"), ...number(3, 0)]));
  say(TO_BROKER, frame(5, [...text(1, "persistent://public/default/<b>refused</b>"), ...number(2, 2), ...number(3, 2)]));
  say(TO_CLIENT, frame(14, [...number(1, 2), ...number(2, 3), ...text(3, "<script>document.title='run'</script>\u202e")]));
  const receipt = (sequence) => frame(7, [...number(1, 1), ...number(2, sequence), ...bytes(3, [...number(1, 7), ...number(2, sequence)])]);
  const zeros = Buffer.alloc(PACKET_MAX);
  for (let sequence = 0; size && sequence < count; sequence += 1) {
    say(TO_BROKER, largeSend(sequence, size));
    for (let left = size; left > 0; left -= PACKET_MAX) say(TO_BROKER, zeros.subarray(0, Math.min(left, PACKET_MAX)));
    say(TO_CLIENT, receipt(sequence));
  }
  for (let sequence = 0; !size && sequence < count; ) {
    const [sends, receipts] = [[], []];
    for (let of = 0; of < 500 && sequence < count; of += 1, sequence += 1) {
      sends.push(...frame(6, [...number(1, 1), ...number(2, sequence)], entry(sequence)));
      receipts.push(...receipt(sequence));
    }
    say(TO_BROKER, sends);
    say(TO_CLIENT, receipts);
  }
  say(TO_CLIENT, frame(7, [...number(1, 1), ...number(2, count + 5), ...bytes(3, [...number(1, 7), ...number(2, 1)])]));
  closeSync(pcap.file);
}
