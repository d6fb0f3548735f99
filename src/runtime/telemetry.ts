// ONNX Runtime 1.30 records its sessions in a database below the user's cache folder and uploads them over HTTPS where it can.
// longwave uses no network that its user did not ask for, so this is off unless the user has set the variable otherwise.

/** Before the library is loaded: it reads the variable once. A value that the user has set stays. */
export function disableTelemetry(environment: NodeJS.ProcessEnv = process.env): void {
  environment.ORT_DISABLE_TELEMETRY ??= "1";
}
