// The examples of the vendor's page on streaming and of its collection of streaming examples, with
// the outputs that they print.

import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import test from 'node:test'
import { Sandbox } from '@e2b/code-interpreter'
import { pause, sandboxed, until } from './face.mjs'

// covers: Sandbox.create, Sandbox.run_code
test('stdout and stderr are streamed in order and apart', sandboxed(async (sandbox) => {
  const codeToRun = `
    import time
    import sys
    print("This goes first to stdout")
    time.sleep(3)
    print("This goes later to stderr", file=sys.stderr)
    time.sleep(3)
    print("This goes last")
  `
  const shown = []
  await sandbox.runCode(codeToRun, {
    onError: (error) => shown.push(['error:', error]),
    onStdout: (data) => shown.push(['stdout:', data]),
    onStderr: (data) => shown.push(['stderr:', data]),
  })

  assert.deepEqual(
    shown.map(([label, { error, line }]) => [label, error, line]),
    [
      ['stdout:', false, 'This goes first to stdout\n'],
      ['stderr:', true, 'This goes later to stderr\n'],
      ['stdout:', false, 'This goes last\n'],
    ],
  )
  const [first, second, third] = shown.map(([, data]) => data.timestamp)
  assert.ok(Number.isInteger(first))
  assert.ok(Math.abs(third / 1000 - Date.now()) < 60_000, 'microseconds')
  assert.ok(second - first > 2_000_000)
  assert.ok(third - second > 2_000_000)
}))

// covers: Sandbox.run_code
test('a chart is a result', sandboxed(async (sandbox) => {
  const codeToRun = `
  import matplotlib.pyplot as plt

  # Prepare data
  categories = ['Category A', 'Category B', 'Category C', 'Category D']
  values = [10, 20, 15, 25]

  # Create and customize the bar chart
  plt.figure(figsize=(10, 6))
  plt.bar(categories, values, color='green')
  plt.xlabel('Categories')
  plt.ylabel('Values')
  plt.title('Values by Category')

  # Display the chart
  plt.show()
  `
  const results = []
  await sandbox.runCode(codeToRun, { onResult: (result) => results.push(result) })

  assert.equal(results.length, 1)
  const [result] = results
  assert.equal(result.text, '<Figure size 1000x600 with 1 Axes>')
  assert.ok(result.formats().includes('png'))
  assert.equal(Buffer.from(result.png, 'base64').subarray(1, 4).toString(), 'PNG')
  assert.deepEqual(result.chart, {
    type: 'bar',
    title: 'Values by Category',
    elements: [
      { label: 'Category A', group: 'Group 0', value: 10 },
      { label: 'Category B', group: 'Group 0', value: 20 },
      { label: 'Category C', group: 'Group 0', value: 15 },
      { label: 'Category D', group: 'Group 0', value: 25 },
    ],
    x_label: 'Categories',
    y_label: 'Values',
    x_unit: null,
    y_unit: null,
  })
}))

// covers: commands.run
test('a command is streamed while it runs', sandboxed(async (sandbox) => {
  // "long-running-command" stands for any; this is the one whose output is printed there.
  const shown = []
  const times = []
  await sandbox.commands.run('for i in 1 2 3; do echo "Line $i"; sleep 1; done; echo bad >&2', {
    onStdout: (data) => {
      shown.push(`[STDOUT] ${data}`)
      times.push(Date.now())
    },
    onStderr: (data) => {
      shown.push(`[STDERR] ${data}`)
    },
  })

  assert.deepEqual(shown, [
    '[STDOUT] Line 1\n',
    '[STDOUT] Line 2\n',
    '[STDOUT] Line 3\n',
    '[STDERR] bad\n',
  ])
  assert.ok(times[1] - times[0] > 600)
  assert.ok(times[2] - times[1] > 600)
}))

test('code is streamed while it runs', sandboxed(async (sandbox) => {
  const pythonCode = `
import time
for i in range(10):
    print(f"Processing {i}", flush=True)
    time.sleep(0.5)
`
  const lines = []
  const times = []
  await sandbox.runCode(pythonCode, {
    onStdout: (data) => {
      lines.push(data.line)
      times.push(Date.now())
    },
    onStderr: (data) => assert.fail(data.line),
    onError: (error) => assert.fail(error.value),
  })

  assert.deepEqual(lines, Array.from({ length: 10 }, (_, i) => `Processing ${i}\n`))
  assert.ok(times[9] - times[0] > 3500)
}))

test('structured events are streamed', sandboxed(async (sandbox) => {
  const pythonCode = `
import json

def emit(event_type: str, data: dict):
    print(json.dumps({"type": event_type, "data": data}), flush=True)

emit("progress", {"percent": 50})
emit("result", {"value": 42})
emit("complete", {})
`
  const done = []
  await sandbox.runCode(pythonCode, {
    onStdout: (data) => {
      // The document parses `data` itself, which is an object here; its text is `data.line`.
      const event = JSON.parse(data.line)

      switch (event.type) {
        case 'progress':
          done.push(['updateProgress', event.data.percent])
          break
        case 'result':
          done.push(['handleResult', event.data.value])
          break
        case 'complete':
          done.push(['finalize'])
          break
      }
    },
  })

  assert.deepEqual(done, [['updateProgress', 50], ['handleResult', 42], ['finalize']])
}))

// covers: handle.wait
test('a background command is streamed and waited for', sandboxed(async (sandbox) => {
  await sandbox.files.write(
    'long_task.py',
    'import time\nfor i in range(3):\n    print("step", i, flush=True)\n    time.sleep(0.7)\n',
  )
  const seen = []
  const begun = Date.now()
  const handle = await sandbox.commands.run('python long_task.py', {
    background: true,
    // The document says `timeout: 0`, which the SDK does not know; its option is `timeoutMs`.
    timeoutMs: 0,
    onStdout: (data) => {
      seen.push(data)
    },
  })
  const returned = Date.now()

  // Check back later
  const result = await handle.wait()

  assert.ok(returned - begun < 1500)
  assert.equal(seen.join(''), 'step 0\nstep 1\nstep 2\n')
  assert.ok(seen.length >= 3)
  assert.equal(result.stdout, 'step 0\nstep 1\nstep 2\n')
  assert.equal(result.exitCode, 0)
}))

test('output is passed on as events of a server', async () => {
  const pythonCode = `
import time
for i in range(3):
    print(f"chunk {i}", flush=True)
    time.sleep(0.5)
`
  // The document uses Express; the same with Node's own server.
  const server = createServer(async (req, res) => {
    res.setHeader('Content-Type', 'text/event-stream')
    res.setHeader('Cache-Control', 'no-cache')
    res.setHeader('Connection', 'keep-alive')

    const sandbox = await Sandbox.create()

    await sandbox.runCode(pythonCode, {
      onStdout: (data) => {
        // The document writes `data` itself, which is an object here and has no text of its own.
        res.write(`data: ${data.line}\n\n`)
      },
    })

    res.end()
    await sandbox.kill()
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  try {
    const answer = await fetch(`http://127.0.0.1:${server.address().port}/stream`)
    const arrivals = []
    let text = ''
    for await (const chunk of answer.body.pipeThrough(new TextDecoderStream())) {
      arrivals.push(Date.now())
      text += chunk
    }
    assert.equal(text, 'data: chunk 0\n\n\ndata: chunk 1\n\n\ndata: chunk 2\n\n\n')
    assert.ok(arrivals.at(-1) - arrivals[0] > 600)
  } finally {
    server.close()
    server.closeAllConnections()
  }
})

test('what writes to stderr has not failed and what raises has', sandboxed(async (sandbox) => {
  const calls = []
  await sandbox.runCode('import sys\nprint("careful", file=sys.stderr)\nprint("fine")\n1/0', {
    onStdout: (data) => calls.push(['output', data.line]),
    onStderr: (data) => calls.push(['warning', data.line]),
    onError: (error) => calls.push(['error', error.name, error.value]),
  })

  assert.deepEqual(calls, [
    ['warning', 'careful\n'],
    ['output', 'fine\n'],
    ['error', 'ZeroDivisionError', 'division by zero'],
  ])
}))

// covers: handle.kill
test('a task without a timeout and one with a timeout', sandboxed(async (sandbox) => {
  const handle = await sandbox.commands.run('sleep 300', {
    background: true,
    timeoutMs: 0, // `timeout: 0` in the document
  })
  const quick = await sandbox.runCode('1 + 1', {
    timeoutMs: 30_000, // `timeout: 30` in the document
  })

  assert.equal(quick.text, '2')
  assert.equal(await handle.kill(), true)
  await assert.rejects(handle.wait(), { exitCode: -1 })
}))

test('a heart beat is kept while a command prints', sandboxed(async (sandbox) => {
  let lastHeartbeat = Date.now()
  let longest = 0
  await sandbox.commands.run('for i in 1 2 3 4; do echo $i; sleep 0.5; done', {
    onStdout: () => {
      longest = Math.max(longest, Date.now() - lastHeartbeat)
      lastHeartbeat = Date.now()
    },
  })

  assert.ok(Date.now() - lastHeartbeat < 5000)
  assert.ok(longest < 5000)
}))

test('an agent tells of its progress', sandboxed(async (sandbox) => {
  // The package of the agent is not installed; a stand-in yields the messages that it would.
  await sandbox.files.write(
    'claude_agent_sdk.py',
    `
class Message:
    def __init__(self, **fields):
        self.__dict__.update(fields)

async def query(prompt):
    yield Message(content="Looking at it")
    yield Message(result="Done")
`,
  )
  const pythonCode = `
import asyncio
import json
from claude_agent_sdk import query

async def main():
    print(json.dumps({"type": "start"}), flush=True)

    result = None
    async for msg in query(prompt="Analyze this data..."):
        if hasattr(msg, "content"):
            print(json.dumps({"type": "chunk", "data": msg.content}), flush=True)
        if hasattr(msg, "result"):
            result = msg.result

    print(json.dumps({"type": "complete", "data": result}), flush=True)

asyncio.run(main())
`
  const events = []
  const execution = await sandbox.runCode(pythonCode, {
    onStdout: (data) => events.push(JSON.parse(data.line)),
  })

  assert.equal(execution.error, undefined)
  assert.deepEqual(events, [
    { type: 'start' },
    { type: 'chunk', data: 'Looking at it' },
    { type: 'complete', data: 'Done' },
  ])
}))

test('the stages of a pipeline are streamed', sandboxed(async (sandbox) => {
  const pipeline = `
import json

def emit(stage, status, progress=None):
    print(json.dumps({
        "stage": stage,
        "status": status,
        "progress": progress
    }), flush=True)

emit("extract", "started")
# ... extract data
emit("extract", "complete", 100)

emit("transform", "started")
# ... transform data
emit("transform", "complete", 100)

emit("load", "started")
# ... load data
emit("load", "complete", 100)
`
  const events = []
  await sandbox.runCode(pipeline, { onStdout: (data) => events.push(JSON.parse(data.line)) })

  assert.deepEqual(
    events.map((event) => [event.stage, event.status, event.progress]),
    ['extract', 'transform', 'load'].flatMap((stage) => [
      [stage, 'started', null],
      [stage, 'complete', 100],
    ]),
  )
}))

test('a log is followed', sandboxed(async (sandbox) => {
  // The document's log is /var/log/app.log, where only root may write.
  await sandbox.commands.run('touch /tmp/app.log')
  const logsBuffer = []

  const handle = await sandbox.commands.run('tail -f /tmp/app.log', {
    background: true,
    onStdout: (data) => {
      logsBuffer.push(data)
    },
  })
  await sandbox.commands.run('echo one >> /tmp/app.log')
  await until(() => logsBuffer.join('') === 'one\n')
  await sandbox.commands.run('echo two >> /tmp/app.log')
  await until(() => logsBuffer.join('') === 'one\ntwo\n')
  await handle.kill()
}))

test('output that is no JSON does not stop anything', sandboxed(async (sandbox) => {
  const events = []
  const others = []
  await sandbox.runCode('print("{\\"a\\": 1}")\nprint("no json")\nprint("{\\"b\\": 2}")', {
    onStdout: async (data) => {
      try {
        events.push(JSON.parse(data.line))
      } catch {
        others.push(data.line)
      }
      await pause(0)
    },
  })

  assert.deepEqual(events, [{ a: 1 }, { b: 2 }])
  assert.deepEqual(others, ['no json\n'])
}))
