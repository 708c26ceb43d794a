// What the tests of the JavaScript SDK share.

import assert from 'node:assert/strict'
import { Sandbox } from '@e2b/code-interpreter'

export const URL_OF_SERVICE = process.env.E2B_API_URL
export const STRANGER = { apiKey: process.env.HEADRACE_TEST_OTHER_KEY }
export const PATIENCE_MS = 20_000

// Gives the body of a test that has a fresh sandbox, killed after the test.
export function sandboxed(body, options = {}) {
  return async () => {
    const sandbox = await Sandbox.create(options)
    try {
      await body(sandbox)
    } finally {
      await sandbox.kill()
    }
  }
}

export function pause(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms))
}

// Waits until the condition holds; `describe` says what there was instead.
export async function until(condition, describe = () => '') {
  const deadline = Date.now() + PATIENCE_MS
  while (!(await condition())) {
    assert.ok(Date.now() < deadline, `it did not come to that; ${describe()}`)
    await pause(20)
  }
}

export function bytes(text) {
  return new TextEncoder().encode(text)
}

// A terminal, with all that it showed.
export async function openTerminal(sandbox, options = {}) {
  const terminal = { shown: '', handle: undefined }
  const decoder = new TextDecoder()
  const onData = (data) => {
    terminal.shown += decoder.decode(data, { stream: true })
  }
  terminal.handle = await sandbox.pty.create({ cols: 80, rows: 24, onData, ...options })
  terminal.type = (text) => sandbox.pty.sendInput(terminal.handle.pid, bytes(text))
  terminal.until = (wanted) =>
    until(
      () => terminal.shown.includes(wanted),
      () => `the terminal showed ${JSON.stringify(terminal.shown)}`,
    )
  return terminal
}
