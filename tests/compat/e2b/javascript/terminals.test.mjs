// Terminals.

import assert from 'node:assert/strict'
import test from 'node:test'
import { NotFoundError } from '@e2b/code-interpreter'
import { bytes, openTerminal, sandboxed, until } from './face.mjs'

// covers: pty.create, pty.send_stdin
test('a terminal has a shell', sandboxed(async (sandbox) => {
  const terminal = await openTerminal(sandbox, { envs: { WORD: 'chosen' }, cwd: '/tmp' })

  await terminal.type('echo "<$WORD $PWD $TERM $((6*7)) é>"\n')
  await terminal.until('<chosen /tmp xterm-256color 42 é>')
  await terminal.type('exit\n')
  const result = await terminal.handle.wait()

  assert.equal(result.exitCode, 0)
}))

test('the exit code of the shell is told', sandboxed(async (sandbox) => {
  const terminal = await openTerminal(sandbox)

  await terminal.type('exit 5\n')

  await assert.rejects(terminal.handle.wait(), { exitCode: 5 })
}))

// covers: pty.resize
test('a terminal has a size that can change', sandboxed(async (sandbox) => {
  const terminal = await openTerminal(sandbox, { rows: 30, cols: 100 })

  await terminal.type('echo "<$(stty size)>"\n')
  await terminal.until('<30 100>')
  await sandbox.pty.resize(terminal.handle.pid, { rows: 50, cols: 132 })
  await terminal.type('echo "<$(stty size)>"\n')
  await terminal.until('<50 132>')
  await terminal.handle.disconnect()
}))

// covers: pty.kill
test('a terminal can be killed', sandboxed(async (sandbox) => {
  const terminal = await openTerminal(sandbox)
  const end = assert.rejects(terminal.handle.wait())

  assert.equal(await sandbox.pty.kill(terminal.handle.pid), true)
  await end
  assert.equal(await sandbox.pty.kill(terminal.handle.pid), false)
}))

// covers: pty.connect
test('a second one can look at a terminal', sandboxed(async (sandbox) => {
  const terminal = await openTerminal(sandbox)
  let shown = ''
  const other = await sandbox.pty.connect(terminal.handle.pid, {
    onData: (data) => {
      shown += Buffer.from(data).toString()
    },
  })

  await terminal.type('echo "<$((2*21))>"\n')

  await terminal.until('<42>')
  await until(() => shown.includes('<42>'))
  assert.equal(other.pid, terminal.handle.pid)
  await other.disconnect()
  await terminal.handle.disconnect()
}))

test('what never was a terminal is not found', sandboxed(async (sandbox) => {
  await assert.rejects(sandbox.pty.sendInput(4_000_000, bytes('x')), NotFoundError)
  await assert.rejects(sandbox.pty.resize(4_000_000, { rows: 1, cols: 1 }), NotFoundError)
  await assert.rejects(sandbox.pty.connect(4_000_000, { onData: () => {} }), NotFoundError)
  assert.equal(await sandbox.pty.kill(4_000_000), false)
}))
