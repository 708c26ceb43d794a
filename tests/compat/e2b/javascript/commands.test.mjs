// Commands and processes.

import assert from 'node:assert/strict'
import test from 'node:test'
import {
  AuthenticationError,
  CommandExitError,
  InvalidArgumentError,
  NotFoundError,
  Sandbox,
  SandboxError,
  TimeoutError,
} from '@e2b/code-interpreter'
import { pause, sandboxed, until } from './face.mjs'

// covers: commands.run
test('both streams are kept and called back with', sandboxed(async (sandbox) => {
  const out = []
  const err = []
  const result = await sandbox.commands.run('echo one; echo two >&2; echo three', {
    onStdout: (data) => {
      out.push(data)
    },
    onStderr: (data) => {
      err.push(data)
    },
  })

  assert.deepEqual([result.stdout, result.stderr], ['one\nthree\n', 'two\n'])
  assert.deepEqual([out.join(''), err.join('')], ['one\nthree\n', 'two\n'])
  assert.equal(result.exitCode, 0)
  assert.equal(result.error, undefined)
}))

// covers: commands.run
test('a command runs in a login shell of the user', sandboxed(async (sandbox) => {
  const result = await sandbox.commands.run(
    'echo "$USER $HOME $PWD $(id -un)"; shopt -q login_shell',
  )

  assert.equal(result.stdout, 'user /home/user /home/user user\n')
}))

// covers: commands.run
test('variables directory and user can be chosen', sandboxed(async (sandbox) => {
  const result = await sandbox.commands.run('echo "$WORD $PWD $(id -un)"', {
    envs: { WORD: 'it\'s "quoted" $HOME' },
    cwd: '/tmp',
    user: 'root',
  })

  assert.equal(result.stdout, 'it\'s "quoted" $HOME /tmp root\n')
}))

test('a missing directory or user is refused', sandboxed(async (sandbox) => {
  await assert.rejects(sandbox.commands.run('true', { cwd: '/no/such' }), InvalidArgumentError)
  await assert.rejects(sandbox.commands.run('true', { user: 'nobody-such' }), AuthenticationError)
}))

test('a command that is killed by a signal says so', sandboxed(async (sandbox) => {
  await assert.rejects(sandbox.commands.run('kill -KILL $$'), (error) => {
    assert.ok(error instanceof CommandExitError)
    assert.equal(error.exitCode, -1)
    assert.match(error.message, /killed/)
    return true
  })
}))

// covers: commands.run
test('a command ends at its timeout', sandboxed(async (sandbox) => {
  await assert.rejects(sandbox.commands.run('sleep 300', { timeoutMs: 1000 }), TimeoutError)

  await until(async () => {
    const result = await sandbox.commands.run('pgrep -x sleep || echo none')
    return result.stdout === 'none\n'
  })
}))

// covers: commands.list
test('processes are listed', sandboxed(async (sandbox) => {
  const command = await sandbox.commands.run('sleep 300', {
    background: true,
    envs: { LISTED: 'yes' },
    cwd: '/tmp',
  })

  const process = (await sandbox.commands.list()).find((one) => one.pid === command.pid)

  assert.equal(process.cmd, '/bin/bash')
  assert.deepEqual(process.args, ['-l', '-c', 'sleep 300'])
  assert.equal(process.envs.LISTED, 'yes')
  assert.equal(process.cwd, '/tmp')
  await command.kill()
  await assert.rejects(command.wait())
}))

// covers: commands.kill, handle.kill
test('a command can be killed', sandboxed(async (sandbox) => {
  const first = await sandbox.commands.run('sleep 300', { background: true })
  const second = await sandbox.commands.run('sleep 300', { background: true })

  assert.equal(await sandbox.commands.kill(first.pid), true)
  assert.equal(await second.kill(), true)

  await assert.rejects(first.wait(), { exitCode: -1 })
  await assert.rejects(second.wait(), { exitCode: -1 })
  assert.equal(await sandbox.commands.kill(first.pid), false)
  assert.equal(await sandbox.commands.kill(4_000_000), false)
}))

// covers: commands.connect, handle.disconnect
test('a command survives a disconnect and can be found again', sandboxed(async (sandbox) => {
  const command = await sandbox.commands.run(
    'for i in $(seq 200); do echo $i; sleep 0.1; [ -e stop ] && break; done; echo 500; exit 7',
    { background: true },
  )
  await command.disconnect()
  await pause(500)

  const seen = []
  const again = await sandbox.commands.connect(command.pid, {
    onStdout: (data) => {
      seen.push(data)
    },
  })
  await sandbox.files.write('stop', '')
  await assert.rejects(again.wait(), { exitCode: 7 })

  assert.equal(again.pid, command.pid)
  // What was printed before is not told again.
  const numbers = seen.join('').trim().split('\n').map(Number)
  assert.equal(numbers.at(-1), 500)
  assert.ok(!numbers.includes(1))
}))

// covers: commands.connect
test('one who comes late learns the end', sandboxed(async (sandbox) => {
  const command = await sandbox.commands.run('exit 4', { background: true })
  await assert.rejects(command.wait(), { exitCode: 4 })

  const late = await sandbox.commands.connect(command.pid)

  await assert.rejects(late.wait(), { exitCode: 4 })
}))

test('nobody can connect to what never was', sandboxed(async (sandbox) => {
  await assert.rejects(sandbox.commands.connect(4_000_000), NotFoundError)
  await assert.rejects(sandbox.commands.sendStdin(4_000_000, 'x'), NotFoundError)
}))

// covers: commands.send_stdin, commands.close_stdin
test('input reaches a command until it is closed', sandboxed(async (sandbox) => {
  const command = await sandbox.commands.run('cat; echo end', { background: true, stdin: true })

  await sandbox.commands.sendStdin(command.pid, 'text ü\n')
  await sandbox.commands.sendStdin(command.pid, new TextEncoder().encode('bytes\n'))
  await sandbox.commands.closeStdin(command.pid)
  const result = await command.wait()

  assert.equal(result.stdout, 'text ü\nbytes\nend\n')
}))

// covers: handle.send_stdin, handle.close_stdin
test('a handle takes input', sandboxed(async (sandbox) => {
  const command = await sandbox.commands.run('wc -l', { background: true, stdin: true })

  await command.sendStdin('a\nb\n')
  await command.closeStdin()
  const result = await command.wait()

  assert.equal(result.stdout.trim(), '2')
}))

test('a command without input takes none', sandboxed(async (sandbox) => {
  const command = await sandbox.commands.run('sleep 300', { background: true })

  await assert.rejects(sandbox.commands.sendStdin(command.pid, 'x\n'), SandboxError)
  await command.kill()
  await assert.rejects(command.wait())
}))

// covers: commands.run
test('bytes that are no text do not stop a stream', sandboxed(async (sandbox) => {
  const result = await sandbox.commands.run(
    "printf 'a\\xffb'; printf '\\xe2\\x82'; sleep 0.2; printf '\\xac'",
  )

  assert.equal(result.stdout, 'a\ufffdb€')
}))

// covers: commands.run
test('large output is whole and in order', sandboxed(async (sandbox) => {
  const result = await sandbox.commands.run('seq 300000')

  assert.equal(result.stdout, Array.from({ length: 300_000 }, (_, i) => `${i + 1}\n`).join(''))
}))

test('a command of the user is not root and one of root is', sandboxed(async (sandbox) => {
  assert.equal((await sandbox.commands.run('id -u')).stdout, '1000\n')
  assert.equal((await sandbox.commands.run('id -u', { user: 'root' })).stdout, '0\n')
}))

test('the user may become root', sandboxed(async (sandbox) => {
  assert.equal((await sandbox.commands.run('sudo id -u')).stdout, '0\n')
}))

test('a sandbox that is killed ends its commands with a timeout', async () => {
  const sandbox = await Sandbox.create()
  const seen = []
  const running = sandbox.commands.run('echo begun; sleep 300', {
    timeoutMs: 0,
    onStdout: (data) => {
      seen.push(data)
    },
  })
  running.catch(() => {})
  await until(() => seen.length > 0)

  await sandbox.kill()

  await assert.rejects(running, (error) => {
    assert.ok(error instanceof TimeoutError, `${error}`)
    assert.match(error.message, /killed/)
    return true
  })
  assert.equal(await sandbox.isRunning(), false)
})
