"""Programs in the languages of sandboxes; both faces run the same."""

STATE = {
    "javascript": ("let x = 41", "x + 1", "42"),
    "typescript": ("const n: number = 41; interface A { a: string }", "n + 1", "42"),
    "bash": ("x=41", "echo $((x + 1))", None),
}
PRINT = {
    "javascript": "console.log('out ü'); console.error('err')",
    "typescript": "const s: string = 'out ü'; console.log(s); console.error('err')",
    "bash": "echo 'out ü'; echo err >&2",
}
VARIABLE = {
    "javascript": "    console.log(process.env.OWN)",
    "typescript": "    console.log(process.env.OWN as string)",
    "bash": '    echo "$OWN"',
}
SLEEP = {
    "javascript": "await new Promise(resolve => setTimeout(resolve, 300000))",
    "typescript": "await new Promise<void>(resolve => setTimeout(resolve, 300000))",
    "bash": "sleep 300",
}
DIRECTORY = {
    "javascript": "console.log(process.cwd())",
    "typescript": "console.log(process.cwd())",
    "bash": "pwd",
}
AWAITED = "import { basename } from 'path'\nawait Promise.resolve(basename('/a/b.txt'))"
