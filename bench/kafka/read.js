// Reads messages of one partition with kafkajs and prints them, one JSON document per line. Text is latin-1.
const { Kafka, logLevel } = require('kafkajs');

const text = (bytes) => (bytes === null || bytes === undefined ? null : Buffer.from(bytes).toString('latin1'));

async function main() {
  const chunks = [];
  for await (const chunk of process.stdin) chunks.push(chunk);
  const asked = JSON.parse(Buffer.concat(chunks).toString());
  const kafka = new Kafka({ brokers: asked.brokers, logLevel: logLevel.ERROR });
  const consumer = kafka.consumer({ groupId: `reader-${asked.topic}-${asked.partition}`, maxWaitTimeInMs: 100 });
  await consumer.connect();
  await consumer.subscribe({ topic: asked.topic, fromBeginning: true });
  const found = [];
  await new Promise((resolve, reject) => {
    consumer.on(consumer.events.CRASH, ({ payload }) => reject(payload.error));
    consumer
      .run({
        autoCommit: false,
        eachMessage: async ({ partition, message }) => {
          if (partition !== asked.partition) return;
          const headers = Object.entries(message.headers || {}).map(([name, value]) => [name, [].concat(value).map(text)]);
          found.push({
            offset: Number(message.offset),
            timestamp: Number(message.timestamp),
            key: text(message.key),
            value: text(message.value),
            headers: Object.fromEntries(headers),
          });
          if (found.length >= asked.count) resolve();
        },
      })
      .catch(reject);
  });
  await consumer.disconnect();
  process.stdout.write(found.map((message) => JSON.stringify(message)).join('\n'));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
