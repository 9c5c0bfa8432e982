package billing;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;

import java.util.concurrent.TimeUnit;
import org.apache.pulsar.client.api.Message;
import org.apache.pulsar.client.api.MessageId;
import org.apache.pulsar.client.api.Producer;
import org.apache.pulsar.client.api.Reader;
import org.apache.pulsar.client.api.Schema;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;

class BillingTest {
    @RegisterExtension
    static final PulsarBroker BROKER = new PulsarBroker();

    @Test
    void eachOrderHasAnInvoice() throws Exception {
        try (Producer<String> producer = BROKER.client().newProducer(Schema.STRING).topic("orders").create()) {
            producer.newMessage().key("ann").value("tea").send();
            producer.newMessage().key("bob").value("milk").send();
        }

        Billing.bill(BROKER.client(), 2);

        try (Reader<String> invoices = BROKER.client().newReader(Schema.STRING)
                .topic("invoices")
                .startMessageId(MessageId.earliest)
                .create()) {
            for (String expected : new String[] {"ann: invoice for tea", "bob: invoice for milk"}) {
                Message<String> invoice = invoices.readNext(10, TimeUnit.SECONDS);
                assertEquals(expected, invoice.getKey() + ": " + invoice.getValue());
            }
            assertFalse(invoices.hasMessageAvailable());
        }
    }
}
