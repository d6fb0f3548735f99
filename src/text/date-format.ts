// strftime for templates: the fields that C's library and Python agree on, in English and local time.
const days = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const months = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];

const pad = (value: number, width = 2, fill = "0"): string => String(value).padStart(width, fill);
const hour12 = (date: Date): number => date.getHours() % 12 || 12;

const fields: Readonly<Record<string, (date: Date) => string>> = {
  a: (date) => days[date.getDay()].slice(0, 3),
  A: (date) => days[date.getDay()],
  b: (date) => months[date.getMonth()].slice(0, 3),
  B: (date) => months[date.getMonth()],
  d: (date) => pad(date.getDate()),
  e: (date) => pad(date.getDate(), 2, " "),
  D: (date) => formatDate(date, "%m/%d/%y"),
  F: (date) => formatDate(date, "%Y-%m-%d"),
  H: (date) => pad(date.getHours()),
  I: (date) => pad(hour12(date)),
  j: (date) =>
    pad(Math.round((Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()) - Date.UTC(date.getFullYear(), 0, 1)) / 864e5) + 1, 3),
  m: (date) => pad(date.getMonth() + 1),
  M: (date) => pad(date.getMinutes()),
  p: (date) => (date.getHours() < 12 ? "AM" : "PM"),
  S: (date) => pad(date.getSeconds()),
  T: (date) => formatDate(date, "%H:%M:%S"),
  w: (date) => String(date.getDay()),
  y: (date) => pad(date.getFullYear() % 100),
  Y: (date) => pad(date.getFullYear(), 4),
  "%": () => "%",
};

/** A date in strftime's notation; `%-d` leaves leading zeros out, and fields that are not known stay as they are. */
export function formatDate(date: Date, format: string): string {
  return format.replace(/%(-?)([a-zA-Z%])/g, (whole, minus: string, name: string) => {
    const text = fields[name]?.(date);
    if (text === undefined) return whole;
    return minus ? text.replace(/^[0 ]+(?=.)/, "") : text;
  });
}
