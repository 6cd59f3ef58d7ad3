// Writes the messages of the document on stdin with kafkajs. Text is latin-1: one character per byte.
const { Kafka, CompressionTypes, Partitioners, logLevel } = require('kafkajs');

const bytes = (text) => (text === null ? null : Buffer.from(text, 'latin1'));

async function main() {
  const chunks = [];
  for await (const chunk of process.stdin) chunks.push(chunk);
  const asked = JSON.parse(Buffer.concat(chunks).toString());
  const kafka = new Kafka({ brokers: asked.brokers, logLevel: logLevel.ERROR });
  const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner });
  await producer.connect();
  const messages = asked.messages.map((m) => ({
    ...m,
    key: bytes(m.key),
    value: bytes(m.value),
    headers: Object.fromEntries(Object.entries(m.headers).map(([name, value]) => [name, bytes(value)])),
  }));
  const compression = asked.codec === 'gzip' ? CompressionTypes.GZIP : CompressionTypes.None;
  await producer.send({ topic: asked.topic, compression, messages });
  await producer.disconnect();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
