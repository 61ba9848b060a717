// BullMQ and nodemailer's pool: a job per recipient, its result kept in Redis. `node bullmq.mjs REDIS_PORT SMTP_PORT MESSAGES SIZE`
import { Queue, Worker } from 'bullmq';
import IORedis from 'ioredis';
import nodemailer from 'nodemailer';

const [redisPort, smtpPort, messages, size] = process.argv.slice(2).map(Number);
const connection = new IORedis(redisPort, '127.0.0.1', { maxRetriesPerRequest: null });
const transport = nodemailer.createTransport({
  host: '127.0.0.1', port: smtpPort, pool: true, maxConnections: 20, maxMessages: Infinity, ignoreTLS: true,
});
const body = ('x'.repeat(70) + '\r\n').repeat(Math.ceil(size / 2 / 72));

const queue = new Queue('bench', { connection });
for (let from = 0; from < messages; from += 1000) {
  const count = Math.min(1000, messages - from);
  await queue.addBulk(Array.from({ length: count }, (_, i) => ({ name: 'send', data: { to: `user${from + i}@example.com`, name: `Customer ${from + i}` } })));
}
const began = process.hrtime.bigint();
let done = 0;
await new Promise((resolve, reject) => {
  const worker = new Worker('bench', async (job) => {
    const { to, name } = job.data;
    const sent = await transport.sendMail({
      from: 'The Shop <news@shop.example>', to, subject: `${name}, autumn is here`,
      text: `Dear ${name},\r\n${body}`, html: `<p>Dear ${name},</p><p>${body}</p>`,
    });
    return sent.response;
  }, { connection, concurrency: 40 });
  worker.on('completed', () => { if (++done === messages) resolve(); });
  worker.on('failed', (_, error) => reject(error));
});
const seconds = Number(process.hrtime.bigint() - began) / 1e9;
const used = process.cpuUsage();
console.log(JSON.stringify({ seconds, cpu_s: (used.user + used.system) / 1e6 }));
process.exit(0);
