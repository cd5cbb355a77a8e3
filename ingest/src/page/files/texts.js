// Every text of the drivers' pages, and how numbers and times are written.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const clock = { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" };
const dateTime = new Intl.DateTimeFormat("en-GB", clock);
const otherYear = new Intl.DateTimeFormat("en-GB", { ...clock, year: "numeric" });
const dateOnly = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium" });

// A decimal of the gateway, exact: no digit goes through a binary fraction.
const decimal = (text, least) => {
  const [head, tail = ""] = String(text).split(".");
  const rest = tail.replace(/0+$/, "").padEnd(least, "0");
  return head.replace(/\B(?=(\d{3})+$)/g, ",") + (rest ? `.${rest}` : "");
};

export const T = {
  product: "Milestream",
  nav: { photos: "Photos", rewards: "Rewards", vehicles: "Vehicles", account: "Account" },
  review: "Reviews",
  cancel: "Cancel",
  save: "Save",
  again: "Try again",
  more: "Show more",
  loading: "Loading",
  saved: "Saved.",
  offline: "You are offline. What you see may be out of date; it goes on by itself when you are back.",
  signOut: "Sign out",
  signedOut: "You are signed out.",
  sessionEnded: "Your session has ended. Please sign in again.",

  mileage: (value, unit) => `${whole.format(Number(value))} ${unit ?? ""}`.trim(),
  km: (value) => `${whole.format(Number(value))} km`,
  b3tr: (value) => `${decimal(value, 2)} B3TR`,
  when: (text) => {
    const at = new Date(text);
    return (at.getFullYear() === new Date().getFullYear() ? dateTime : otherYear).format(at);
  },
  day: (text) => dateOnly.format(new Date(text)),
  short: (address) => `${address.slice(0, 6)}…${address.slice(-4)}`,
  bytes: (count) => (count >= 1048576 ? `${whole.format(count / 1048576)} MB` : `${Math.ceil(count / 1024)} kB`),

  problem: (error) => {
    if (error?.name === "TypeError" || error?.offline) return "The service cannot be reached. Please check your connection.";
    const text = error?.message ?? "Something went wrong.";
    const sentence = text.charAt(0).toUpperCase() + text.slice(1);
    const wait = error?.retryAfter ? ` Try again in ${error.retryAfter} seconds.` : "";
    return (/[.!?]$/.test(sentence) ? sentence : `${sentence}.`) + wait;
  },

  signIn: {
    title: "Drive. Photograph. Get paid.",
    lead: "Send a photo of your odometer from time to time. Every kilometre that is verified earns you B3TR, paid to your wallet on VeChain.",
    steps: [
      ["Photograph", "your odometer, straight on, with the total mileage in view."],
      ["Follow", "your photo through its checks, live. You see every reason."],
      ["Be paid", "for the distance since your last photo, to your own wallet."],
    ],
    wallet: "Sign in with VeWorld",
    why: "You sign a message that proves the wallet is yours. It costs nothing and moves nothing.",
    none: "Sign in with a wallet",
    noneText: "No wallet was found in this browser. Install the VeWorld extension, or on a phone open this page in the VeWorld app.",
    get: "Get VeWorld",
    development: "Sample drivers",
    developmentText: "This is a development system. Sign in as a sample driver with one click; the wallets are worth nothing.",
    as: (name) => `Sign in as ${name}`,
    connect: "Connect this wallet to Milestream.",
    off: "Nobody can sign in here yet: this gateway has no network or no signing key.",
  },

  photos: {
    title: "Photos",
    send: "New photo",
    vehicle: "Vehicle",
    addVehicle: "Add a vehicle",
    noVehicle: "Add your vehicle first",
    noVehicleText: "A photo belongs to a vehicle, and is compared with the vehicle's earlier ones.",
    take: "Take a photo",
    choose: "Choose a photo",
    drop: "or drop it here",
    kinds: (bytes) => `JPEG, PNG, WebP or HEIC, ${bytes} at most`,
    advice: "The whole number sharp and straight on, without glare.",
    claim: "Mileage that you read (optional)",
    claimHint: "If it differs from the photo, a person looks at it.",
    another: "Choose another",
    post: "Send photo",
    sending: (percent) => `Sending, ${percent} %`,
    sent: "Your photo is on its way.",
    tooLarge: (bytes) => `The photo has more than ${bytes}.`,
    notImage: "That is no photo: choose a JPEG, PNG, WebP or HEIC.",
    preview: "The photo that you have chosen",
    photo: "Your photo",
    noPhoto: "The photo cannot be shown now.",
    history: "History",
    none: "No photos yet",
    noneText: "Your first photo sets the starting point. From the second on, the distance in between is rewarded.",
    progress: "Progress",
    reading: "Reading",
    distance: "Distance",
    reward: "Reward",
    sentAt: "Sent",
    ofVehicle: "Vehicle",
    payment: "Payment",
    unnamed: "My vehicle",
    unread: "Not read yet",
    noReading: "No reading",
  },

  steps: [
    ["received", "Received"],
    ["quality_check", "Quality checked"],
    ["odometer_reading", "Mileage read"],
    ["fraud_check", "Verified"],
    ["reward", "Reward granted"],
    ["paid", "Paid"],
  ],

  stages: {
    quality_check: "Checking photo",
    odometer_reading: "Reading mileage",
    fraud_check: "Verifying",
    review: "A person is looking at it",
    decided: "Decided",
    reward: "Reward granted",
    payout: "Being paid",
    paid: "Paid",
  },

  verdicts: {
    verified: "Verified",
    rejected: "Not accepted",
    failed: "Could not be processed",
    review: "In review",
    start: "Starting point",
  },

  // Why, in a few words; the gateway says what to do about it.
  reasons: {
    unsupported_format: "Not a photo",
    truncated_image: "Photo cut off",
    too_dark: "Too dark",
    over_exposed: "Too bright",
    blurred: "Blurred",
    glare: "Reflection",
    low_resolution: "Too small",
    no_odometer: "No odometer found",
    low_confidence: "Hard to read",
    several_readings: "Several numbers",
    duplicate_photo: "Photo used before",
    rollback: "Below last reading",
    impossible_speed: "Too far in the time",
    claim_mismatch: "Other than typed",
    edited_photo: "Edited photo",
    stale_photo: "Old photo",
    photo_of_screen: "Photo of a screen",
    velocity: "Too many photos",
    account_standing: "Account locked",
    review_rejected: "Turned down",
    review_timeout: "Not reviewed in time",
    another_photo: "New photo needed",
    processing_failed: "Processing failed",
    duplicate_event: "Handled before",
    bad_framing: "Fault on our side",
    unknown_schema: "Fault on our side",
    bad_datum: "Fault on our side",
    bad_row: "Fault on our side",
    operator_skip: "Set aside",
    no_distance: "No distance yet",
    not_verified: "Not verified",
    cancelled: "Cancelled",
    over_limit: "Budget used up",
  },

  rewards: {
    title: "Rewards",
    earned: "Earned so far",
    driven: "Verified distance",
    waiting: "Ready to claim",
    none: "No rewards yet",
    noneText: "The distance between two verified photos is rewarded here.",
    claim: "Claim",
    claimed: "Claimed. The payment follows shortly.",
    auto: "Rewards are paid to you by themselves, as your preferences say.",
    manual: "Rewards are paid when you claim them, as your preferences say.",
    status: {
      calculated: "Being worked out",
      pending: "Being paid",
      distributed: "Paid",
      failed: "Payment is tried again",
      cancelled: "Cancelled",
      claimable: "Ready to claim",
    },
    confirmations: (count) => `${count} of 12 confirmations`,
    transaction: "Transaction",
    forPhoto: "Open the photo",
  },

  vehicles: {
    title: "Vehicles",
    add: "Add vehicle",
    edit: "Edit",
    editTitle: "Edit vehicle",
    name: "Name",
    nameHint: "So that you know it again, such as “Blue van”.",
    kind: "Drive",
    unit: "Odometer shows",
    units: { km: "Kilometres", miles: "Miles", "": "I am not sure" },
    kinds: {
      petrol: "Petrol",
      diesel: "Diesel",
      hybrid: "Hybrid",
      plug_in: "Plug-in hybrid",
      lpg: "LPG",
      electric: "Electric",
      unknown: "Not said",
    },
    retire: "Retire",
    retireTitle: "Retire this vehicle?",
    retireText: "No more photos of it are taken. Its history and rewards stay, and you can bring it back.",
    bring: "Bring back",
    retired: "Retired",
    none: "No vehicles yet",
    noneText: "Add the vehicle whose odometer you are going to photograph.",
    since: (day) => `Added ${day}`,
  },

  account: {
    title: "Account",
    profile: "Profile",
    name: "Name",
    email: "E-mail",
    emailHint: "Optional.",
    wallets: "Wallets",
    primary: "Rewards go here",
    addWallet: "Add wallet",
    addWalletText: "The wallet signs a message that it is yours. Choose it:",
    makePrimary: "Pay to this one",
    remove: "Remove",
    removeTitle: "Remove this wallet?",
    removeText: "You can no longer sign in with it.",
    unproven: "Has not signed yet",
    balance: (value) => `${value} received`,
    sessions: "Signed in on",
    current: "This device",
    end: "End session",
    ended: "The session has ended.",
    sessionSince: (day) => `since ${day}`,
    unknownDevice: "Unknown device",
    preferences: "Preferences",
    autoClaim: "Pay rewards without my claiming them",
    autoClaimHint: "It holds for photos that you send from then on.",
    theme: "Appearance",
    themes: { system: "As the device", light: "Light", dark: "Dark" },
  },
};
