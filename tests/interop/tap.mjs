// A tap and a subscriber, written from serd/protocol/README.md alone.
//
//   node tap.mjs AUDIO_ENDPOINT EVENTS_ENDPOINT REPLAY_ENDPOINT STREAM < 8 kHz mono s16le
//
// Sends its standard input, prints every event of the stream as one line of JSON, and, when the
// stream has closed, the cursors that the replay socket has of its utterances.
import { Dealer, Push, Subscriber } from "zeromq";

const [audio, events, replay, stream] = process.argv.slice(2);

const sub = new Subscriber({ receiveHighWaterMark: 0 });
sub.connect(events);
for (const type of ["stream", "speech", "emotion", "utterance", "gap"]) {
  sub.subscribe(`${type}.${stream}`);
}
sub.subscribe("daemon.");

let sequence = 0;
let firstSample = 0n;

function message(encoding, flags, payload, capturedAtNs) {
  const header = Buffer.alloc(32);
  header.write("SRD1", 0, "latin1");
  header.writeUInt8(encoding, 4);
  header.writeUInt8(1, 5);
  header.writeUInt16LE(flags, 6);
  header.writeUInt32LE(8000, 8);
  header.writeUInt32LE(sequence, 12);
  header.writeBigUInt64LE(firstSample, 16);
  header.writeBigUInt64LE(capturedAtNs, 24);
  sequence = (sequence + 1) >>> 0;
  return [stream, header, payload];
}

async function send() {
  const push = new Push({ linger: 10000 });
  push.connect(audio);
  const chunks = [];
  for await (const chunk of process.stdin) chunks.push(chunk);
  const samples = Buffer.concat(chunks);
  const metadata = { call_id: "node-1", roles: ["customer"], labels: { tool: "node" } };
  await push.send(message(0, 1 | 32, JSON.stringify(metadata), 0n));
  for (let at = 0; at < samples.length; at += 592) {
    // 37 ms a message.
    const payload = samples.subarray(at, at + 592);
    await push.send(message(1, 0, payload, 0n));
    firstSample += BigInt(payload.length / 2);
  }
  await push.send(message(0, 2, "", 0n));
  push.close();
}

// The daemon's own newest event comes at once: then the subscriptions are in force.
async function subscribed() {
  const [topic] = await sub.receive();
  if (!topic.toString().startsWith("daemon.")) throw new Error("topic");
}

async function receive() {
  for await (const [topic, cursor, body] of sub) {
    const event = JSON.parse(body.toString());
    if (event.stream !== stream) continue;
    if (topic.toString() !== `${event.type}.${event.stream}`) throw new Error("topic");
    if (cursor.readBigUInt64BE() !== BigInt(event.cursor)) throw new Error("cursor");
    console.log(JSON.stringify(event));
    if (event.type === "stream" && event.state === "closed") break;
  }
  sub.close();
}

async function ask() {
  const dealer = new Dealer({ linger: 0 });
  dealer.connect(replay);
  const request = { after: 0, topic: `utterance.${stream}`, limit: 2 };
  const cursors = [];
  for (let done = { more: true }; done.more; request.after = done.after) {
    await dealer.send(JSON.stringify(request));
    for (;;) {
      const [kind, ...parts] = await dealer.receive();
      if (kind.toString() === "event") {
        cursors.push(Number(parts[1].readBigUInt64BE()));
      } else if (kind.toString() === "done") {
        done = JSON.parse(parts[0].toString());
        break;
      } else {
        throw new Error(parts[0].toString());
      }
    }
  }
  console.log(JSON.stringify({ replayed: cursors }));
  dealer.close();
}

await subscribed();
await Promise.all([receive(), send()]);
await ask();
