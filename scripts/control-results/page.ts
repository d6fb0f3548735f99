export function writePage(_rows: unknown): void {}
